"""IDEFICS, first generation (transformers' IdeficsForVisionText2Text): idefics-9b, its variants, and the world's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from icltool.components.models.idefics.fixed_formats import FixedFormats
from icltool.components.models.idefics.idefics_prefix_cache import IdeficsPrefixCache, ready_features, whole_vocabulary
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.components.models.shared.adapter import EncodesImages
from icltool.components.models.shared.decoder_hooks import HookedDecoder, answers_at
from icltool.components.models.shared.image_reader import ImageReader, Pixels, on_device
from icltool.components.models.shared.loading import check_image_processor, loading_errors, read_config, text_limit
from icltool.components.models.shared.prompt_format import IDEFICS_FORMATS
from icltool.components.models.shared.scoring import (
    beam_options,
    decoded,
    end_tokens,
    plain_generation,
    target_scores,
)
from icltool.components.models.shared.tokenizer_file import as_in_file
from icltool.components.models.shared.tokens import (
    PaddedRows,
    TokenizedPrompt,
    batches_by_length,
    in_batches,
    padded_rows,
    predicting,
    text_lengths,
    tokenize,
)
from icltool.components.models.shared.weights import Weights, weights_of
from icltool.contracts import AnswerBatch, Features, GenerationOptions, Prompt, TargetScore
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor


class IdeficsModel(EncodesImages, FixedFormats, HookedDecoder):
    """The adapter. A token attends to the last image before it; tokens before the first image attend to none.

    Masks and positions are always those of the unpadded prompt, whatever else is in the batch. `padding_side` applies to
    scoring; generation always pads on the left.
    """

    padding_side = "right"
    options_model = IdeficsOptions
    formats = IDEFICS_FORMATS

    def __init__(self, options: IdeficsOptions) -> None:
        """Loads tokenizer, image processor and weights. Raises ConfigError when weights are missing or do not fit."""
        from transformers import IdeficsForVisionText2Text

        weights = self._open(options)
        self._load(IdeficsForVisionText2Text, weights, options)
        self.dtype = self.model.dtype
        vocabulary = self.tokenizer.get_vocab()
        missing = [token for token in ("<image>", "<fake_token_around_image>") if token not in vocabulary]
        if missing:
            raise ConfigError(
                f"the tokenizer in {weights.source} has no {missing[0]}", "choose the weights of an IDEFICS model"
            )
        self._image_token = int(vocabulary["<image>"])
        self._markers = [self._image_token, int(vocabulary["<fake_token_around_image>"])]
        pad = self.tokenizer.pad_token_id
        self._pad = 0 if pad is None else int(pad)
        self._resampled = bool(self.model.config.use_resampler)
        plain_generation(self.model, end_tokens(self.model, self.tokenizer))
        self._use_prefix_cache(
            IdeficsPrefixCache(
                self.model,
                self.tokenizer,
                self.device,
                self._markers,
                self._image_token,
                lambda paths: self.image_features(paths, len(paths)),
            )
        )

    def _open(self, options: IdeficsOptions) -> Weights:
        from transformers import AutoTokenizer, IdeficsForVisionText2Text

        self.name = name = options.name
        self.template, self.format = options.template, self.format_of(options)
        weights = weights_of(options)
        with loading_errors(name, weights):
            self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(weights.source, **weights.where)
            as_in_file(self.tokenizer, weights.source, name)
            self.image_processor = _image_processor(weights.source, weights.local_only)
            check_image_processor(name, self.image_processor)
        self.config = read_config(IdeficsForVisionText2Text, name, weights)
        return weights

    def image_reader(self) -> ImageReader:
        """See PreparesImages."""
        return ImageReader(self.image_processor)

    @torch.inference_mode()
    def encode_images(self, prepared: Sequence[Pixels]) -> list[torch.Tensor]:
        """See PreparesImages. One forward pass of the vision encoder and, if the model has one, of the perceiver: a tensor
        [tokens, width] per image."""
        states = self.model.model.vision_model(pixel_values=self._pixels(prepared)).last_hidden_state
        if self._resampled:
            states = self.model.model.perceiver_resampler(states)
        return list(states)

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        return text_lengths(self.tokenizer, prompts)

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        """See Model.score. Logits are computed at target positions only."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=text_limit(self.model.config))

        def compute(batch: Sequence[int]) -> list[TargetScore]:
            chosen = [tokens[i] for i in batch]
            rows = self._rows(chosen, self.padding_side)
            hidden = self._hidden(self._inputs(rows, [prompts[i] for i in batch], features))
            logits = self.model.lm_head(hidden[predicting(rows.spans(chosen))])
            return target_scores(logits, [t.ids[t.target_start :] for t in chosen])

        return in_batches(batches_by_length([len(t.ids) for t in tokens], batch_size), compute)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], options: GenerationOptions, batch_size: int, features: Features = None
    ) -> list[str]:
        """See Model.generate. Image tokens are never generated."""
        tokens = tokenize(
            self.tokenizer, prompts, with_target=False, limit=text_limit(self.model.config, options.max_new_tokens)
        )

        def compute(batch: Sequence[int]) -> list[str]:
            search = beam_options(self._pad, options, [prompts[i].draw for i in batch])
            rows = self._rows([tokens[i] for i in batch], "left")
            inputs = self._inputs(rows, [prompts[i] for i in batch], features)
            ready = "image_encoder_embeddings" in inputs
            if ready:  # generate() passes features on under this name only
                inputs["image_hidden_states"] = inputs.pop("image_encoder_embeddings")
            with whole_vocabulary(self.model.config), ready_features(self.model.model.config, ready):
                output = self.model.generate(**inputs, **search, suppress_tokens=self._markers)
            return decoded(self.tokenizer, output[:, inputs["input_ids"].shape[1] :])

        return in_batches(batches_by_length([len(t.ids) for t in tokens], batch_size), compute)

    def decoder_layers(self) -> Sequence[torch.nn.Module]:
        """See SupportsDecoderHooks. Image attention layers are separate from these."""
        return list(self.model.model.layers)

    def checkpointed_layers(self) -> Sequence[torch.nn.Module]:
        """See SupportsDecoderHooks."""
        return [*self.model.model.layers, *self.model.model.gated_cross_attn_layers]

    def answer_batch(self, prompts: Sequence[Prompt], features: Features) -> AnswerBatch:
        """See SupportsDecoderHooks."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=text_limit(self.model.config))
        rows = self._rows(tokens, "right")
        with torch.no_grad():
            inputs = self._inputs(rows, prompts, features)
        return answers_at(inputs, rows.spans(tokens))

    def answer_logits(self, batch: AnswerBatch) -> torch.Tensor:
        """See SupportsDecoderHooks."""
        hidden = self._hidden(batch.inputs)
        at = (
            batch.rows.to(hidden.device),
            batch.columns.to(hidden.device),
        )  # if the model is spread over several, the last layer's
        logits: torch.Tensor = self.model.lm_head(hidden[at])
        return logits.to(batch.rows.device)

    def _rows(self, tokens: Sequence[TokenizedPrompt], side: str) -> PaddedRows:
        return padded_rows([t.ids for t in tokens], self._pad, side)

    def _pixels(self, prepared: Sequence[Pixels]) -> torch.Tensor:
        """Pixel values [n, 3, H, W] on the model's device."""
        return on_device(np.stack(prepared), self.device).to(self.dtype)

    def _inputs(self, rows: PaddedRows, prompts: Sequence[Prompt], features: Features) -> dict[str, torch.Tensor]:
        """Model inputs for one batch: ids, masks [B, T] and [B, T, I], and pixels or ready features [B, I, …]."""
        images, ids, mask = max(1, *(len(p.images) for p in prompts)), rows.ids, rows.mask
        current = ids.eq(self._image_token).cumsum(1) - 1
        attends = (current[:, :, None] == torch.arange(images)) & mask[:, :, None].bool()
        inputs = {
            "input_ids": ids.to(self.device),
            "attention_mask": mask.to(self.device),
            "image_attention_mask": attends.long().to(self.device),
        }
        if not any(p.images for p in prompts):  # the model requires an image even if no token attends to one
            size = self.model.config.vision_config.image_size
            inputs["pixel_values"] = torch.zeros(len(prompts), 1, 3, size, size, device=self.device, dtype=self.dtype)
        elif features is None:
            inputs["pixel_values"] = self._stack([p.images for p in prompts], images, self._pixel_map(prompts))
        else:
            inputs["image_encoder_embeddings"] = self._stack([p.images for p in prompts], images, features)
        return inputs

    def _hidden(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The last hidden states [B, T, width] for the result of `_inputs`."""
        with ready_features(self.model.model.config, "image_encoder_embeddings" in inputs):
            hidden: torch.Tensor = self.model.model(**inputs, use_cache=False).last_hidden_state
        return hidden

    def _pixel_map(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        paths = list(dict.fromkeys(path for p in prompts for path in p.images))
        read = self.image_reader()
        return dict(zip(paths, self._pixels([read(path) for path in paths]), strict=True))

    def _stack(self, rows: Sequence[Sequence[str]], images: int, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[B, images, …]: each row's images in order, zeros where a row has fewer (no token attends to them)."""
        blank = torch.zeros_like(values[next(path for row in rows for path in row)])
        return torch.stack([torch.stack([values[p] for p in row] + [blank] * (images - len(row))) for row in rows])


def _image_processor(source: str, local_only: bool) -> BaseImageProcessor:
    """The image processor for PIL images: it gives the same pixels on every machine, with torchvision or without."""
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    return IdeficsImageProcessorPil.from_pretrained(source, local_files_only=local_only)
