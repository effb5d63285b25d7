"""IDEFICS, first generation (transformers' IdeficsForVisionText2Text): idefics-9b, its kin, and the embedded world's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from icltool.components.models.idefics.idefics_continuing import ContinuingIdefics, ready_features, whole_vocabulary
from icltool.components.models.shared.decoder_hooks import attention_heads, template_hash
from icltool.components.models.shared.image_reader import ImageReader, Pixels, on_device
from icltool.components.models.shared.loading import LoadOptions, check_image_processor, load_model, loading_errors
from icltool.components.models.shared.prompt_format import IDEFICS_FORMATS, chosen_format
from icltool.components.models.shared.scoring import beam_options, end_tokens, plain_generation, target_scores
from icltool.components.models.shared.tokenizer_file import as_in_file
from icltool.components.models.shared.tokens import TokenizedPrompt, batches_by_length, text_lengths, tokenize
from icltool.components.models.shared.weights import find_weights, fingerprint, weights_hash
from icltool.contracts import (
    AnswerBatch,
    AttentionHeads,
    Example,
    GenerationOptions,
    ModelIdentity,
    Prompt,
    TargetScore,
    Task,
)
from icltool.errors import ConfigError


class IdeficsModel(ContinuingIdefics):
    """The adapter. Image attention follows the prompt: a token sees the last image before it, none before the first.

    Masks and positions are always those of the unpadded prompt, whatever else is in the batch. `padding_side` is where
    prompts that are scored are filled up; answers are generated after padding on the left.
    """

    padding_side = "right"

    def __init__(
        self,
        name: str = "idefics",
        packaged: str | None = None,
        hub_id: str | None = None,
        path: str | None = None,
        device: str = "auto",
        device_map: str | None = None,
        dtype: str = "auto",
        attention: str | None = None,
        quantization: str | None = None,
        compile: bool = False,
        template: str = "lever-lm",
    ) -> None:
        """Loads tokenizer, image processor and weights; see LoadOptions for the options. `template` says whose
        prompts are written: those of the published runs of Lever-LM ("lever-lm") or of LIVE ("live").

        Raises ConfigError when weights are missing or do not fit, or an option or template is unknown.
        """
        from transformers import AutoTokenizer, IdeficsForVisionText2Text

        self.name = name
        self.template, self._format = template, chosen_format(IDEFICS_FORMATS, template)
        options = LoadOptions(device, device_map, dtype, attention, quantization, compile)
        weights = find_weights(name, packaged, hub_id, path)
        with loading_errors(name, weights):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(weights.source, **weights.where)
            as_in_file(self.tokenizer, weights.source, name)
            self.image_processor = _image_processor(weights.source, weights.local_only)
            check_image_processor(name, self.image_processor)
        loaded = load_model(IdeficsForVisionText2Text, name, weights, options)
        self.model, self.device, self.dtype = loaded.model, loaded.device, loaded.model.dtype
        self._source, self._precision = weights.source, loaded.precision
        vocabulary = self.tokenizer.get_vocab()
        missing = [token for token in ("<image>", "<fake_token_around_image>") if token not in vocabulary]
        if missing:
            raise ConfigError(f"the tokenizer in {weights.source} has no {missing[0]}", "this is no idefics model")
        self._image_token = int(vocabulary["<image>"])
        self._markers = [self._image_token, int(vocabulary["<fake_token_around_image>"])]
        pad = self.tokenizer.pad_token_id
        self._pad = 0 if pad is None else int(pad)
        self._resampled = bool(self.model.config.use_resampler)
        plain_generation(self.model, end_tokens(self.model, self.tokenizer))

    def fingerprint(self) -> str:
        return fingerprint(self._source, self._precision, repr(self._format))

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        return self._format.prompt(task, demonstrations, query)

    def clean(self, task: Task | str, text: str) -> str:
        return self._format.clean(task, text)

    @torch.inference_mode()
    def image_features(self, paths: Sequence[str], batch_size: int) -> list[torch.Tensor]:
        """One tensor [tokens, width] per image: the perceiver's output, or the vision encoder's where there is none."""
        found: list[torch.Tensor] = []
        read = self.image_reader()
        for start in range(0, len(paths), batch_size):
            found += self.encode_images([read(path) for path in paths[start : start + batch_size]])
        return found

    def image_reader(self) -> ImageReader:
        """See PreparesImages."""
        return ImageReader(self.image_processor)

    @torch.inference_mode()
    def encode_images(self, prepared: Sequence[Pixels]) -> list[torch.Tensor]:
        """See PreparesImages. One forward pass of the vision encoder, and of the perceiver where there is one."""
        pixels = on_device(np.stack(prepared), self.device).to(self.dtype)
        states = self.model.model.vision_model(pixel_values=pixels).last_hidden_state
        if self._resampled:
            states = self.model.model.perceiver_resampler(states)
        return list(states)

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        return text_lengths(self.tokenizer, prompts)

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None = None
    ) -> list[TargetScore]:
        """See Model.score. Logits are computed at target positions only."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=self._limit())
        scores: list[TargetScore | None] = [None] * len(prompts)
        for batch in batches_by_length([len(t.ids) for t in tokens], batch_size):
            chosen = [tokens[i] for i in batch]
            left = self.padding_side == "left"
            inputs = self._inputs(chosen, [prompts[i] for i in batch], features, left)
            hidden = self._hidden(inputs)
            rows, columns = _target_positions(chosen, left)
            logits = self.model.lm_head(hidden[rows, columns])
            found = target_scores(logits, [t.ids[t.target_start :] for t in chosen])
            for i, score in zip(batch, found, strict=True):
                scores[i] = score
        return [s for s in scores if s is not None]

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        batch_size: int,
        features: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """See Model.generate. The image tokens are never generated: an answer shows no image."""
        limit = None if self._limit() is None else self._limit() - options.max_new_tokens  # type: ignore[operator]
        tokens = tokenize(self.tokenizer, prompts, with_target=False, limit=limit)
        search = beam_options(self._pad, options)
        texts: list[str] = [""] * len(prompts)
        for batch in batches_by_length([len(t.ids) for t in tokens], batch_size):
            inputs = self._inputs([tokens[i] for i in batch], [prompts[i] for i in batch], features, left=True)
            ready = "image_encoder_embeddings" in inputs
            if ready:  # generate() hands features on under this name only
                inputs["image_hidden_states"] = inputs.pop("image_encoder_embeddings")
            with whole_vocabulary(self.model.config), ready_features(self.model.model.config, ready):
                output = self.model.generate(**inputs, **search, suppress_tokens=self._markers)
            new = output[:, inputs["input_ids"].shape[1] :]
            for i, text in zip(batch, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                texts[i] = text
        return texts

    def base_model(self) -> ModelIdentity:
        """See SupportsDecoderHooks."""
        config = self.model.config
        template = template_hash(self._format)
        return ModelIdentity(
            self.name, weights_hash(self._source), template, config.num_hidden_layers, config.hidden_size
        )

    def decoder_layers(self) -> Sequence[Any]:
        """See SupportsDecoderHooks. Image attention is apart from these, before every layer of its interval."""
        return list(self.model.model.layers)

    def checkpointed_layers(self) -> Sequence[Any]:
        """See SupportsDecoderHooks."""
        return [*self.model.model.layers, *self.model.model.gated_cross_attn_layers]

    def shifted_modules(self) -> Sequence[Any]:
        """See SupportsDecoderHooks: LIVE shifts the outputs of IDEFICS' layers."""
        return self.decoder_layers()

    def attention_heads(self) -> Sequence[AttentionHeads]:
        """See SupportsDecoderHooks."""
        return [attention_heads(layer.self_attn, self.model.config) for layer in self.model.model.layers]

    def answer_batch(self, prompts: Sequence[Prompt], features: Mapping[str, Any] | None) -> AnswerBatch:
        """See SupportsDecoderHooks."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=self._limit())
        with torch.no_grad():
            inputs = self._inputs(tokens, prompts, features, left=False)
        rows, columns = _target_positions(tokens, left=False)
        targets = [token for t in tokens for token in t.ids[t.target_start :]]
        found = [torch.tensor(part, device=self.device) for part in (rows, columns, targets)]
        lasts = torch.tensor([t.target_start - 1 for t in tokens], device=self.device)
        return AnswerBatch(inputs, found[0], found[1], found[2], lasts)

    def answer_logits(self, batch: AnswerBatch) -> torch.Tensor:
        """See SupportsDecoderHooks."""
        hidden = self._hidden(batch.inputs)
        at = batch.rows.to(hidden.device), batch.columns.to(hidden.device)  # the last layer's, where there are several
        logits: torch.Tensor = self.model.lm_head(hidden[at])
        return logits.to(batch.rows.device)

    def _limit(self) -> int | None:
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def _pixels(self, paths: Sequence[str]) -> torch.Tensor:
        """Pixel values [n, 3, H, W] on the model's device."""
        read = self.image_reader()
        return on_device(np.stack([read(path) for path in paths]), self.device).to(self.dtype)

    def _inputs(
        self,
        tokens: Sequence[TokenizedPrompt],
        prompts: Sequence[Prompt],
        features: Mapping[str, Any] | None,
        left: bool,
    ) -> dict[str, Any]:
        """Padded model inputs for one batch: ids, masks [B, T] and [B, T, I], and pixels or ready features [B, I, …]."""
        length, images = max(len(t.ids) for t in tokens), max(1, *(len(p.images) for p in prompts))
        ids = torch.full((len(tokens), length), self._pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, token in enumerate(tokens):
            n = len(token.ids)
            span = slice(length - n, length) if left else slice(0, n)
            ids[row, span] = torch.tensor(token.ids)
            mask[row, span] = 1
        current = ids.eq(self._image_token).cumsum(1) - 1
        attends = (current[:, :, None] == torch.arange(images)) & mask[:, :, None].bool()
        inputs: dict[str, Any] = {
            "input_ids": ids.to(self.device),
            "attention_mask": mask.to(self.device),
            "image_attention_mask": attends.long().to(self.device),
        }
        if not any(p.images for p in prompts):  # the model wants an image even where no token attends to one
            size = self.model.config.vision_config.image_size
            inputs["pixel_values"] = torch.zeros(len(prompts), 1, 3, size, size, device=self.device, dtype=self.dtype)
        elif features is None:
            inputs["pixel_values"] = self._stack([p.images for p in prompts], images, self._pixel_map(prompts))
        else:
            inputs["image_encoder_embeddings"] = self._stack([p.images for p in prompts], images, features)
        return inputs

    def _hidden(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The last hidden states [B, T, width] for what `_inputs` made."""
        with ready_features(self.model.model.config, "image_encoder_embeddings" in inputs):
            hidden: torch.Tensor = self.model.model(**inputs, use_cache=False).last_hidden_state
        return hidden

    def _pixel_map(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        paths = list(dict.fromkeys(path for p in prompts for path in p.images))
        return dict(zip(paths, self._pixels(paths), strict=True))

    def _stack(self, rows: Sequence[Sequence[str]], images: int, values: Mapping[str, Any]) -> torch.Tensor:
        """[B, images, …]: each row's images in order, zeros where a row has fewer (no token attends to them)."""
        blank = torch.zeros_like(values[next(path for row in rows for path in row)])
        return torch.stack([torch.stack([values[p] for p in row] + [blank] * (images - len(row))) for row in rows])


def _target_positions(tokens: Sequence[TokenizedPrompt], left: bool) -> tuple[list[int], list[int]]:
    """(rows, columns) of the positions that predict each target token in a batch that is padded on this side."""
    longest = max(len(token.ids) for token in tokens)
    rows: list[int] = []
    columns: list[int] = []
    for row, token in enumerate(tokens):
        shift = longest - len(token.ids) if left else 0
        rows += [row] * (len(token.ids) - token.target_start)
        columns += range(shift + token.target_start - 1, shift + len(token.ids) - 1)
    return rows, columns


def _image_processor(source: str, local_only: bool) -> Any:
    """The image processor that works on PIL pictures: the same pixels on every machine, torchvision or not."""
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    return IdeficsImageProcessorPil.from_pretrained(source, local_files_only=local_only)
