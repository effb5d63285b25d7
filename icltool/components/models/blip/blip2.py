"""BLIP-2 (transformers' Blip2ForConditionalGeneration), with OPT or Flan-T5 as its language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.captioner import opening
from icltool.components.models.shared.captioner_format import CaptionerFormat
from icltool.components.models.shared.fine_tuning import COMMON_RECIPE, TunableCaptioner
from icltool.components.models.shared.tokens import positions
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from icltool.components.models.shared.loading import ModelClass, Network

#: Side in pixels of the images that the published checkpoints were pre-trained on.
PRETRAINED_SIZE = 224
#: The published fine-tuning on COCO captions and its fork for Sherlock. A text of 32 tokens is a prompt of 4 and a caption.
_RECIPE: Mapping[str, object] = {
    **COMMON_RECIPE,
    "schedule": "blip2",
    "warmup_lr": 1e-8,
    "warmup_steps": 1000,
    "layer_decay": 1.0,
    "batch_size": 16,
    "image_size": 364,
    "freeze": ("language_model",),
    "max_target_tokens": 28,
}

#: How the published runs search captions.
CAPTION_SEARCH: Mapping[str, float] = {
    "num_beams": 5,
    "max_new_tokens": 30,
    "min_new_tokens": 8,
    "repetition_penalty": 1.15,
    "length_penalty": 0.0,
}


class PrefixedCaptioner(TunableCaptioner):
    """A captioner whose language model reads images as tokens within its text (32 for each in the published models): what
    BLIP-2 and InstructBLIP share. A prompt may contain any number of images.

    The start token of a decoder comes after the tokens of the first image, as in training.
    """

    @property
    def language(self) -> Network:
        language_model: Network = self.model.language_model
        return language_model

    def _prompt_format(self) -> CaptionerFormat:
        marker = "<image>"
        if marker not in self.tokenizer.get_vocab():
            raise ConfigError(
                f"the tokenizer in {self.source} has no {marker}", "download its files again: older ones lack the token"
            )
        self.placeholder = self.tokenizer.get_vocab()[marker]
        self.placeholders = int(self.config.num_query_tokens)
        eos = str(self.tokenizer.eos_token)
        specials = self.tokenizer.all_special_tokens
        reserved = tuple(sorted({marker, *specials}))
        if self.target_apart:
            start = opening(self.tokenizer, marker, "")
            # T5's tokenizer reads a line break as a blank, so a full stop comes before it
            return CaptionerFormat(marker, start, eos, " ", ".\n", eos, r"\.?\s*\n", reserved)
        begins = self.language_config.bos_token_id
        if self.tokenizer.bos_token_id != begins:  # in training all texts began with it
            raise ConfigError(
                f"the tokenizer in {self.source} has {self.tokenizer.bos_token!r} "
                f"({self.tokenizer.bos_token_id}) as its start token, the model {begins}",
                "check that tokenizer_config.json is there and belongs to this model",
            )
        start = opening(self.tokenizer, marker, str(self.tokenizer.bos_token))
        return CaptionerFormat(marker, start, "", " ", "\n", "\n", r"\n", reserved)

    def _attended(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The states that replace the placeholders, [images, placeholders, width]."""
        return self._image_states(inputs)

    def _language_inputs(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        assert self.placeholder is not None
        is_placeholder = ids.eq(self.placeholder)
        # older files have no embedding for the placeholder, which needs none
        embedded = self.language.get_input_embeddings()(ids.masked_fill(is_placeholder, self._pad))
        if "image_states" in inputs or "pixel_values" in inputs:
            states = self._attended(inputs).to(embedded.device, embedded.dtype)
            embedded = embedded.masked_scatter(is_placeholder[..., None].to(embedded.device), states)
        language_inputs = {"inputs_embeds": embedded, "attention_mask": mask}
        return language_inputs if self.target_apart else {**language_inputs, "position_ids": positions(mask)}

    def published_search(self, task: str) -> Mapping[str, float]:
        """See TunableCaptioner."""
        return CAPTION_SEARCH if task in ("caption", "inference") else {}

    def fine_tuning_parts(self) -> Mapping[str, Sequence[str]]:
        """See SupportsFineTuning."""
        return {
            "vit": ("vision_model.", "!vision_model.post_layernorm."),
            "qformer": ("qformer.", "query_tokens"),
            "projection": ("language_projection.",),
            "language_model": ("language_model.",),
        }


class Blip2Model(PrefixedCaptioner):
    """The adapter. The features of an image are the projected query tokens that the language model attends to."""

    def model_class(self) -> ModelClass:
        from transformers import Blip2ForConditionalGeneration

        return Blip2ForConditionalGeneration

    def fine_tuning_recipe(self, task: str) -> Mapping[str, object]:
        """See SupportsFineTuning."""
        recipe = dict(_RECIPE)
        if self.image_size != PRETRAINED_SIZE:
            del recipe["image_size"]  # not a published pre-trained checkpoint: keep its size
        if self.target_apart:  # the decoder reads the caption alone
            recipe["max_target_tokens"] = 32
        if task in ("inference", "inference-choice"):  # the clue is in the prompt, so the target gets all 32 tokens
            recipe |= {"batch_size": 8, "freeze": ("vit", "language_model"), "max_target_tokens": 32}
        return recipe

    def _encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        # `resize_images` has resized the position embeddings, so there is nothing to interpolate here
        features: torch.Tensor = self.model.get_image_features(pixels, return_dict=True).pooler_output
        return features
