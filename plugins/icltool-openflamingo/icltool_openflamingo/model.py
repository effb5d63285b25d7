"""The adapter: OpenFlamingo as an `icltool.Model` that can encode an image once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from icltool import (
    EncodesImages,
    Features,
    GenerationOptions,
    LoadOptions,
    PaddedRows,
    PluginError,
    Prompt,
    PromptFile,
    PromptFormat,
    TargetScore,
    TokenizedPrompt,
    batches_by_length,
    beam_options,
    fingerprint,
    in_batches,
    own_prompt,
    padded_rows,
    predicting,
    target_scores,
    tokenize,
)
from icltool_openflamingo.hooks import HookedFlamingo, hash_of
from icltool_openflamingo.language import load_language_model, load_tokenizer, resize_embeddings
from icltool_openflamingo.places import PartFinder
from icltool_openflamingo.prefix_cache import FlamingoPrefixCache
from icltool_openflamingo.prompts import END_OF_CHUNK, IMAGE, prompt_format
from icltool_openflamingo.vision import ImageReader, Pixels, load_clip

INSTALL = "pip install --no-deps open_flamingo==2.0.1"


class OpenFlamingoOptions(LoadOptions):
    """For `checkpoint`, `language_model` and `clip` see `icltool_openflamingo.places`."""

    checkpoint: str | None = Field(None, description="OWNER/NAME of the checkpoint on the Hugging Face hub")
    language_model: str = Field(
        "anas-awadalla/mpt-1b-redpajama-200b", description="folder or hub id of the language model"
    )
    clip: str = Field("timm/vit_large_patch14_clip_224.openai", description="folder or hub id of CLIP")
    cross_attention_interval: int = Field(
        1, ge=1, description="number of layers from one cross-attention layer to the next"
    )
    start: str = Field("", description="text at the start of every prompt")
    template: Literal["lever-lm", "live"] = Field(
        "lever-lm", title="prompt template", description="write prompts as in the published runs of Lever-LM or of LIVE"
    )
    prompt: PromptFile | None = Field(None, description="prompt of the user's own: --prompt FILE")


class OpenFlamingoModel(EncodesImages, HookedFlamingo):
    """In each cross-attention layer, text attends to the last image before it; text before the first image attends to none.

    Masks and positions are always those of the unpadded prompt, whatever else is in the batch; prompts with fewer images are
    padded with images that no token attends to. `padding_side` applies to scoring; generation always pads on the left.
    """

    padding_side = "right"

    options_model = OpenFlamingoOptions
    format: PromptFormat

    def __init__(self, options: OpenFlamingoOptions) -> None:
        """Loads CLIP, language model and checkpoint; for their location see README.md.

        Raises ConfigError if a part is missing or does not fit, PluginError if open_flamingo is not installed.
        """
        assembly = _import_assembly(options.name)
        self.name, self.device, self.template = options.name, options.target(), options.template
        interval = options.cross_attention_interval
        parts = PartFinder(options.name, options.path).find(options.checkpoint, options.language_model, options.clip)
        self._weights = hash_of(parts)
        state = assembly.read_checkpoint(parts.checkpoint)
        precision = options.precision()
        lm = load_language_model(parts.language_model, getattr(torch, precision), options.attention)
        rows = assembly.embedding_rows(state, lm, parts.checkpoint)
        self.tokenizer = load_tokenizer(parts.language_model, rows)
        resize_embeddings(lm, rows)
        tower, self._transform, width = load_clip(parts.clip)
        flamingo = assembly.assemble(tower, width, lm, self.tokenizer, interval, parts.language_model.source)
        assembly.load_checkpoint(flamingo, state, parts.checkpoint)
        self.model = flamingo.eval().requires_grad_(False).to(self.device, getattr(torch, precision))
        ends = [END_OF_CHUNK, *([self.tokenizer.eos_token] if self.tokenizer.eos_token else [])]
        self._ends = [int(self.tokenizer.convert_tokens_to_ids(token)) for token in ends]
        self._image = int(self.tokenizer.convert_tokens_to_ids(IMAGE))
        pad = self.tokenizer.pad_token_id
        self._pad = self._ends[-1] if pad is None else int(pad)
        end = self.tokenizer.eos_token if self.tokenizer.eos_token and self.tokenizer.eos_token_id != pad else ""
        form = prompt_format(options.start, end, self.tokenizer.all_special_tokens, options.template)
        self.format = own_prompt(form, options.prompt)
        marks = [fingerprint(identity) for identity in parts.identities]
        encode = lambda paths: self.image_features(paths, len(paths))  # noqa: E731
        self._use_prefix_cache(
            FlamingoPrefixCache(self.model, self.tokenizer, self.device, self._image, encode, self._ends, self._limit())
        )
        self._fingerprint = fingerprint(parts.identities[0], *marks, precision, str(interval), repr(self.format))

    def fingerprint(self) -> str:
        return self._fingerprint

    def image_reader(self) -> ImageReader:
        """See `icltool.PreparesImages`."""
        return ImageReader(self._transform)

    @torch.inference_mode()
    def encode_images(self, prepared: Sequence[Pixels]) -> list[torch.Tensor]:
        """See `icltool.PreparesImages`. One tensor [latents, width] per image: the perceiver's output (64 x 1024 in the
        published models)."""
        pixels = torch.from_numpy(np.stack(prepared)).to(self.device, self.model.perceiver.latents.dtype)
        tokens = self.model.vision_encoder(pixels)[1]
        return list(self.model.perceiver(tokens[:, None, None])[:, 0])  # [B, image, frame, token, width]

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        """See Model.score. Logits are computed at target positions only, their log-softmax in float32."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=self._limit())
        head = self.model.lang_encoder.get_output_embeddings()

        def compute(batch: Sequence[int]) -> list[TargetScore]:
            chosen = [tokens[i] for i in batch]
            rows = self._padded(chosen, self.padding_side)
            hidden = self._states(rows, self._media([prompts[i] for i in batch], batch_size, features))
            logits = head(hidden[predicting(rows.spans(chosen))])
            return target_scores(logits, [t.ids[t.target_start :] for t in chosen])

        return in_batches(batches_by_length([len(t.ids) for t in tokens], batch_size), compute)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], options: GenerationOptions, batch_size: int, features: Features = None
    ) -> list[str]:
        """See Model.generate. An answer ends with `<|endofchunk|>` or EOS; `<image>` is never generated.

        transformers caches keys and values; new tokens attend to the prompt's last image, which open_flamingo's layers keep
        from the pass over the prompt.
        """
        tokens = tokenize(self.tokenizer, prompts, with_target=False, limit=self._limit(options.max_new_tokens))
        lm = self.model.lang_encoder

        def compute(batch: Sequence[int]) -> list[str]:
            rows = self._padded([tokens[i] for i in batch], "left")
            search = self._search(options, [prompts[i].draw for i in batch])
            media = self._media([prompts[i] for i in batch], batch_size, features)
            with self._looking_at(media.repeat_interleave(options.num_beams, dim=0)):
                lm._use_cached_vision_x = True  # tokens after the prompt come without <image>: keep its last image
                output = lm.generate(input_ids=rows.ids, attention_mask=rows.mask, **search)
            return list(self.tokenizer.batch_decode(output[:, rows.ids.shape[1] :], skip_special_tokens=True))

        return in_batches(batches_by_length([len(t.ids) for t in tokens], batch_size), compute)

    def _states(self, rows: PaddedRows, media: torch.Tensor) -> torch.Tensor:
        """Last hidden states [B, T, width] of a padded batch, by one forward pass without a cache."""
        lm, ids = self.model.lang_encoder, rows.ids
        with self._looking_at(media) as layers:
            for layer in layers:
                layer.condition_media_locations(ids == self._image)
                layer.condition_use_cached_media(False)
            states: torch.Tensor = lm.base_model(
                input_ids=ids, attention_mask=rows.mask, position_ids=rows.positions, use_cache=False
            ).last_hidden_state
        return states

    def _search(self, options: GenerationOptions, draws: Sequence[int]) -> dict[str, Any]:
        """The search options of transformers' `generate`."""
        own = {"use_cache": True, "suppress_tokens": [self._image], "eos_token_id": self._ends}
        return {**beam_options(self._pad, options, draws), **own}

    @contextmanager
    def _looking_at(self, media: torch.Tensor) -> Iterator[Sequence[Any]]:
        """A context with the decoder's layers conditioned on `media` [B, images, latents, width]."""
        lm = self.model.lang_encoder
        try:
            for layer in lm._get_decoder_layers():
                layer.condition_vis_x(media)
            yield lm._get_decoder_layers()
        finally:
            lm.clear_conditioned_layers()
            lm._use_cached_vision_x = False

    def _media(self, prompts: Sequence[Prompt], batch_size: int, features: Features) -> torch.Tensor:
        """[B, images, latents, width]: each prompt's images in order, then zeros, which no token attends to."""
        if features is None:
            paths = list(dict.fromkeys(path for prompt in prompts for path in prompt.images))
            features = dict(zip(paths, self.image_features(paths, batch_size), strict=True))
        most = max(1, *(len(prompt.images) for prompt in prompts))
        blank = torch.zeros_like(self.model.perceiver.latents)
        rows = [[features[p] for p in q.images] + [blank] * (most - len(q.images)) for q in prompts]
        return torch.stack([torch.stack(row) for row in rows])

    def _padded(self, tokens: Sequence[TokenizedPrompt], side: str) -> PaddedRows:
        """The padded rows on the model's device."""
        return padded_rows([t.ids for t in tokens], self._pad, side).to(self.device)

    def _limit(self, reserve: int = 0) -> int | None:
        config = self.model.lang_encoder.config
        limit = getattr(config, "max_seq_len", None) or getattr(config, "max_position_embeddings", None)
        return None if limit is None else int(limit) - reserve


def _import_assembly(name: str) -> Any:
    try:
        from icltool_openflamingo import assembly
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("open_flamingo", "einops", "einops_exts"):
            raise
        raise PluginError(
            f"model {name!r} needs the package {package}, which is not installed",
            f"{INSTALL} && pip install einops einops-exts",
        ) from error
    return assembly
