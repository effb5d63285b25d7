"""InstructBLIP (transformers' InstructBlipForConditionalGeneration), with Flan-T5 or Vicuna as its language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from icltool.components.models.blip.blip2 import PrefixedCaptioner
from icltool.components.models.shared.captioner_format import CaptionerFormat
from icltool.components.models.shared.fine_tuning import COMMON_RECIPE
from icltool.contracts import Prompt
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from icltool.components.models.shared.loading import ModelClass


class InstructBlipModel(PrefixedCaptioner):
    """The adapter. With each image the Q-Former reads the query that follows it in the prompt, but never an answer. So the
    features of an image that are valid for any prompt are the vision encoder's states."""

    def model_class(self) -> ModelClass:
        from transformers import InstructBlipForConditionalGeneration

        return InstructBlipForConditionalGeneration

    def _prompt_format(self) -> CaptionerFormat:
        tokenizer = self.processor.qformer_tokenizer
        if (
            tokenizer.pad_token is None or tokenizer.cls_token is None
        ):  # transformers accepts any tokenizer that it finds
            raise ConfigError(
                f"{self.source} has no Q-Former tokenizer",
                "check that the folder qformer_tokenizer is there and complete",
            )
        return super()._prompt_format()

    def fine_tuning_recipe(self, task: str) -> Mapping[str, object]:
        """See SupportsFineTuning. Instruction tuning trained the Q-Former alone (arXiv:2305.06500, section 2.5)."""
        return {
            **COMMON_RECIPE,
            "schedule": "cosine",
            "warmup_lr": 1e-8,
            "warmup": 0.1,
            "batch_size": 8,
            "freeze": ("vit", "language_model"),
            "max_target_tokens": 32,
        }

    def _image_inputs(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        texts = [text for prompt in prompts for text in self._instructions(prompt.text)]
        if not texts:
            return {}
        encoded = self.processor.qformer_tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return {
            "qformer_input_ids": encoded["input_ids"].to(self.device),
            "qformer_attention_mask": encoded["attention_mask"].to(self.device),
        }

    def _instructions(self, text: str) -> list[str]:
        """What the Q-Former reads with each image: the instruction that follows it, or follows the images after it."""
        instructions: list[str] = []
        for segment in reversed(text.split(self.format.image)[1:]):
            plain = self._unmarked(segment)
            repeated = not plain.strip() and instructions
            instructions.append(instructions[-1] if repeated else self.format.instruction(plain))
        return instructions[::-1]

    def _unmarked(self, text: str) -> str:
        """The text without the language model's special tokens, which the Q-Former does not know."""
        for token in self.tokenizer.all_special_tokens:
            text = text.replace(token, "")
        return text

    def _attended(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        states = super()._attended(inputs)
        ids, mask = inputs["qformer_input_ids"], inputs["qformer_attention_mask"]
        queries = self.model.query_tokens.expand(len(states), -1, -1)
        seen = torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1)
        output = self.model.qformer(
            input_ids=ids, attention_mask=seen, query_embeds=queries, encoder_hidden_states=states, return_dict=True
        )
        projected: torch.Tensor = self.model.language_projection(output.last_hidden_state[:, : queries.shape[1]])
        return projected
