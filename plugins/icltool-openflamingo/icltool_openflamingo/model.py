"""The adapter: OpenFlamingo as an `icltool.Model` that can encode an image once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from icltool import (
    Example,
    GenerationOptions,
    LoadOptions,
    PluginError,
    Prompt,
    TargetScore,
    Task,
    TokenizedPrompt,
    batches_by_length,
    fingerprint,
    target_scores,
    tokenize,
)
from icltool_openflamingo.hooks import HookedFlamingo, hash_of
from icltool_openflamingo.language import load_language_model, load_tokenizer, resize_embeddings
from icltool_openflamingo.places import PartFinder
from icltool_openflamingo.prompts import END_OF_CHUNK, IMAGE, check_template, prompt_format
from icltool_openflamingo.vision import ImageReader, load_clip

INSTALL = "pip install --no-deps open_flamingo==2.0.1"


class OpenFlamingoModel(HookedFlamingo):
    """Text attends, in each cross-attention layer, to the last image before it, and to none before the first image.

    Masks and positions are always those of the unpadded prompt, whatever else is in the batch; images that a prompt
    lacks stand behind its own, where no token of it attends to. `padding_side` is where prompts that are scored are
    filled up; answers are generated after padding on the left.
    """

    padding_side = "right"

    def __init__(
        self,
        name: str = "openflamingo",
        path: str | None = None,
        checkpoint: str | None = None,
        language_model: str = "anas-awadalla/mpt-1b-redpajama-200b",
        clip: str = "timm/vit_large_patch14_clip_224.openai",
        cross_attention_interval: int = 1,
        start: str = "",
        device: str = "auto",
        dtype: str = "auto",
        attention: str | None = None,
        template: str = "lever-lm",
    ) -> None:
        """Loads CLIP, language model and checkpoint; README.md says where from.

        `path` is a folder with checkpoint.pt, or a hub id. `checkpoint`, `language_model` and `clip` are hub ids (the
        last two may be folders), looked up as `places` says. `start` opens every prompt. `attention`
        is the language model's self-attention, a name that transformers knows. `template` says whose prompts are
        written, a name in TEMPLATES. Raises ConfigError when a part is missing or does not fit, or for an unknown
        template, PluginError where open_flamingo is not installed.
        """
        check_template(template)
        assembly = _import_assembly(name)
        options = LoadOptions(device=device, dtype=dtype, attention=attention)
        self.name, self.device, self.template = name, options.target(), template
        parts = PartFinder(name, path).find(checkpoint, language_model, clip)
        self._weights = hash_of(parts)
        state = assembly.read_checkpoint(parts.checkpoint)
        precision = options.precision()
        lm = load_language_model(parts.language_model, getattr(torch, precision), attention)
        rows = assembly.embedding_rows(state, lm, parts.checkpoint)
        self.tokenizer: Any = load_tokenizer(parts.language_model, rows)
        resize_embeddings(lm, rows)
        tower, self._transform, width = load_clip(parts.clip)
        flamingo = assembly.assemble(
            tower, width, lm, self.tokenizer, cross_attention_interval, parts.language_model.source
        )
        assembly.load_checkpoint(flamingo, state, parts.checkpoint)
        self.model = flamingo.eval().requires_grad_(False).to(self.device, getattr(torch, precision))
        ends = [END_OF_CHUNK, *([self.tokenizer.eos_token] if self.tokenizer.eos_token else [])]
        self._ends = [int(self.tokenizer.convert_tokens_to_ids(token)) for token in ends]
        self._image = int(self.tokenizer.convert_tokens_to_ids(IMAGE))
        pad = self.tokenizer.pad_token_id
        self._pad = self._ends[-1] if pad is None else int(pad)
        end = self.tokenizer.eos_token if self.tokenizer.eos_token and self.tokenizer.eos_token_id != pad else ""
        self._format = prompt_format(start, end, self.tokenizer.all_special_tokens, template)
        marks = [fingerprint(identity) for identity in parts.identities]
        self._fingerprint = fingerprint(
            parts.identities[0], *marks, precision, str(cross_attention_interval), repr(self._format)
        )

    def fingerprint(self) -> str:
        return self._fingerprint

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        return self._format.prompt(task, demonstrations, query)

    def clean(self, task: Task | str, text: str) -> str:
        return self._format.clean(task, text)

    @torch.inference_mode()
    def image_features(self, paths: Sequence[str], batch_size: int) -> list[torch.Tensor]:
        """One tensor [latents, width] per image: the perceiver's output (64 x 1024 in the published models)."""
        found: list[torch.Tensor] = []
        read = self.image_reader()
        for start in range(0, len(paths), batch_size):
            found += self.encode_images([read(path) for path in paths[start : start + batch_size]])
        return found

    def image_reader(self) -> ImageReader:
        """See `icltool.PreparesImages`."""
        return ImageReader(self._transform)

    @torch.inference_mode()
    def encode_images(self, prepared: Sequence[Any]) -> list[torch.Tensor]:
        """See `icltool.PreparesImages`."""
        pixels = torch.from_numpy(np.stack(prepared)).to(self.device, self.model.perceiver.latents.dtype)
        tokens = self.model.vision_encoder(pixels)[1]
        return list(self.model.perceiver(tokens[:, None, None])[:, 0])  # [B, image, frame, token, width]

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None = None
    ) -> list[TargetScore]:
        """See Model.score. Logits are computed at target positions only, their log-softmax in float32."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=self._limit())
        scores: dict[int, TargetScore] = {}
        lm = self.model.lang_encoder
        for batch in batches_by_length([len(t.ids) for t in tokens], batch_size):
            chosen = [tokens[i] for i in batch]
            ids, mask = self._padded(chosen, left=self.padding_side == "left")
            hidden = self._states(ids, mask, self._media([prompts[i] for i in batch], batch_size, features))
            rows = [row for row, t in enumerate(chosen) for _ in t.ids[t.target_start :]]
            predicting = torch.cat([torch.arange(t.target_start - 1, len(t.ids) - 1) for t in chosen])
            firsts = mask.argmax(1).cpu()
            logits = lm.get_output_embeddings()(hidden[rows, predicting + firsts[rows]])
            scores.update(zip(batch, target_scores(logits, [t.ids[t.target_start :] for t in chosen]), strict=True))
        return [scores[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        batch_size: int,
        features: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """See Model.generate. An answer ends with `<|endofchunk|>` or EOS; `<image>` is never generated.

        Keys and values are cached by transformers; the image that new tokens look at is the prompt's last one, which
        open_flamingo's layers keep from the prompt's own pass.
        """
        limit = self._limit()
        tokens = tokenize(
            self.tokenizer, prompts, with_target=False, limit=None if limit is None else limit - options.max_new_tokens
        )
        texts: list[str] = [""] * len(prompts)
        lm = self.model.lang_encoder
        for batch in batches_by_length([len(t.ids) for t in tokens], batch_size):
            ids, mask = self._padded([tokens[i] for i in batch], left=True)
            media = self._media([prompts[i] for i in batch], batch_size, features)
            with self._looking_at(media.repeat_interleave(options.num_beams, dim=0)):
                lm._use_cached_vision_x = True  # tokens after the prompt come without <image>: keep its last image
                output = lm.generate(input_ids=ids, attention_mask=mask, **self._search(options))
            new = output[:, ids.shape[1] :]
            for i, text in zip(batch, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                texts[i] = text
        return texts

    def _states(self, ids: torch.Tensor, mask: torch.Tensor, media: torch.Tensor) -> torch.Tensor:
        """Last hidden states [B, T, width] of a padded batch, by one forward pass without a cache."""
        lm, positions = self.model.lang_encoder, (mask.cumsum(1) - 1).clamp(min=0)
        with self._looking_at(media) as layers:
            for layer in layers:
                layer.condition_media_locations(ids == self._image)
                layer.condition_use_cached_media(False)
            states: torch.Tensor = lm.base_model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state
        return states

    def _search(self, options: GenerationOptions) -> dict[str, Any]:
        """What transformers' `generate` is told."""
        return {
            "max_new_tokens": options.max_new_tokens,
            "num_beams": options.num_beams,
            "do_sample": False,
            "use_cache": True,
            "suppress_tokens": [self._image],
            "pad_token_id": self._pad,
            "eos_token_id": self._ends,
            **({"length_penalty": options.length_penalty} if options.num_beams > 1 else {}),
            **({"min_new_tokens": options.min_new_tokens} if options.min_new_tokens else {}),
            **({"repetition_penalty": options.repetition_penalty} if options.repetition_penalty != 1 else {}),
            **({"no_repeat_ngram_size": options.no_repeat_ngram} if options.no_repeat_ngram else {}),
        }

    @contextmanager
    def _looking_at(self, media: torch.Tensor) -> Iterator[Any]:
        """The decoder's layers, conditioned on `media` [B, images, latents, width], and on nothing afterwards."""
        lm = self.model.lang_encoder
        try:
            for layer in lm._get_decoder_layers():
                layer.condition_vis_x(media)
            yield lm._get_decoder_layers()
        finally:
            lm.clear_conditioned_layers()
            lm._use_cached_vision_x = False

    def _media(self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None) -> torch.Tensor:
        """[B, images, latents, width]: each prompt's images in order, then zeros, which no token attends to."""
        if features is None:
            paths = list(dict.fromkeys(path for prompt in prompts for path in prompt.images))
            features = dict(zip(paths, self.image_features(paths, batch_size), strict=True))
        most = max(1, *(len(prompt.images) for prompt in prompts))
        blank = torch.zeros_like(self.model.perceiver.latents)
        rows = [[features[p] for p in q.images] + [blank] * (most - len(q.images)) for q in prompts]
        return torch.stack([torch.stack(row) for row in rows])

    def _padded(self, tokens: Sequence[TokenizedPrompt], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, int64 [B, T] on the model's device."""
        length = max(len(t.ids) for t in tokens)
        ids = torch.full((len(tokens), length), self._pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, token in enumerate(tokens):
            n = len(token.ids)
            span = slice(length - n, length) if left else slice(0, n)
            ids[row, span] = torch.tensor(token.ids)
            mask[row, span] = 1
        return ids.to(self.device), mask.to(self.device)

    def _limit(self) -> int | None:
        config = self.model.lang_encoder.config
        limit = getattr(config, "max_seq_len", None) or getattr(config, "max_position_embeddings", None)
        return None if limit is None else int(limit)


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
