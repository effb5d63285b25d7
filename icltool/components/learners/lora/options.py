"""Options of LoRA."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from icltool.components.learners.interventions.options import InterventionOptions
from icltool.components.learners.options import names_of


class LoRAOptions(InterventionOptions):
    """All options that, with the examples and a seed, determine what LoRA learns."""

    rank: int = Field(8, ge=1, description="rank of each adapter")
    lora_alpha: float = Field(
        16.0, gt=0, description="scale of the adapters: their output is multiplied by lora_alpha / rank"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate of the adapters' inputs")
    targets: Annotated[tuple[Literal["query", "value", "output"], ...], BeforeValidator(names_of)] = Field(
        ("query", "value"), min_length=1, description="projections of the self-attention that get adapters"
    )
    distil: bool = Field(
        False, description="also minimise the KL divergence of LIVE; without it, no demonstrations are read"
    )
    shots: int = Field(32, ge=1, description="demonstrations in the teacher's prompt, with distil=true")
    hard_loss_weight: float = Field(1.0, ge=0, description="weight of the cross-entropy")
    lr: float = Field(1e-4, gt=0, description="peak learning rate of AdamW")

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _check_loss(self) -> LoRAOptions:
        if not (self.hard_loss_weight or self.distil):
            raise ValueError("hard_loss_weight=0 leaves nothing to minimise without distil=true")
        if self.temperature_schedule == "learned" and not self.distil:
            raise ValueError("temperature_schedule=learned needs distil=true")
        return self
