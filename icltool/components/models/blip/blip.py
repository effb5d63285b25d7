"""BLIP (transformers' BlipForConditionalGeneration): a text decoder that attends to the states of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.captioner_format import QUERIES, CaptionerFormat
from icltool.components.models.shared.fine_tuning import COMMON_RECIPE, TunableCaptioner
from icltool.components.models.shared.tokens import positions
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from icltool.components.models.shared.loading import ModelClass, Network

#: The decoder's start token; its id comes right after the vocabulary of BERT.
_START = "[DEC]"


class BlipModel(TunableCaptioner):
    """The adapter. Demonstrations are text only: the model attends to one image, the query's."""

    images_per_prompt = 1

    def model_class(self) -> ModelClass:
        from transformers import BlipForConditionalGeneration

        return BlipForConditionalGeneration

    @property
    def language(self) -> Network:
        decoder: Network = self.model.text_decoder
        return decoder

    @property
    def target_apart(self) -> bool:
        """See Model: text and target form one decoder sequence, whatever the configuration says."""
        return False

    def _prompt_format(self) -> CaptionerFormat:
        start = int(self.language_config.bos_token_id)
        if _START not in self.tokenizer.get_vocab():
            self.tokenizer.add_special_tokens({"additional_special_tokens": [_START]})
        token_id = self.tokenizer.convert_tokens_to_ids(_START)
        if token_id != start:
            raise ConfigError(
                f"the tokenizer in {self.source} has {_START} at {token_id}, the model at {start}",
                "download its files again",
            )
        reserved = tuple(sorted({_START, *self.tokenizer.all_special_tokens}))
        queries = {**QUERIES, "caption": "a picture of"}  # as published
        # the tokenizer drops line breaks, so a full stop ends a demonstration
        end = str(self.tokenizer.sep_token)
        return CaptionerFormat("", _START, "", " ", ". ", end, r"\s*\.(?:\s|$)", reserved, True, queries)

    def _ends(self) -> list[int]:
        return [int(self.tokenizer.sep_token_id)]

    def _suppressed(self) -> list[int]:
        """The start tokens of decoder and encoder, for which BERT's tokenizer has no text."""
        return list(range(int(self.language.config.bos_token_id), int(self.language.config.vocab_size)))

    def published_search(self, task: str) -> Mapping[str, float]:
        """See TunableCaptioner: as published (arXiv:2201.12086), 3 beams of 5 to 20 tokens, prompt included."""
        return {"num_beams": 3, "max_new_tokens": 16, "min_new_tokens": 1} if task == "caption" else {}

    def fine_tuning_recipe(self, task: str) -> Mapping[str, object]:
        """See SupportsFineTuning: the published fine-tuning on COCO captions."""
        large = int(self.model.config.vision_config.hidden_size) >= 1024
        return {
            **COMMON_RECIPE,
            "lr": 2e-6 if large else 1e-5,
            "schedule": "cosine",
            "batch_size": 16 if large else 32,
            "image_size": 384,
            "freeze": (),
            "max_target_tokens": 36,
            "label_smoothing": 0.1,
        }

    def fine_tuning_parts(self) -> Mapping[str, Sequence[str]]:
        """See SupportsFineTuning."""
        return {
            "vit": ("vision_model.", "!vision_model.post_layernorm."),
            "language_model": ("text_decoder.",),
        }

    def _language_inputs(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        states = self._image_states(inputs)
        mask = inputs["attention_mask"]
        return {
            "input_ids": inputs["input_ids"],
            "attention_mask": mask,
            "position_ids": positions(mask),
            "encoder_hidden_states": states,
            "encoder_attention_mask": mask.new_ones(states.shape[:2]),
        }
