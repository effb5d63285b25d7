"""Options of MimIC."""

from __future__ import annotations

from pydantic import Field, model_validator

from icltool.components.learners.interventions.options import InterventionOptions


class MimicOptions(InterventionOptions):
    """Everything that decides what MimIC learns from its examples and a seed. The teacher's states that are aligned with are
    kept, too, where `teacher_draws` is set: layers x width numbers for each token of each answer, in the model's dtype."""

    max_train_size: int = Field(1000, ge=2, description="examples that are learned from, at most, drawn by seed")
    align: float = Field(
        1.0,
        ge=0,
        description="weight of the mean squared difference between states of student and teacher in all layers",
    )
    align_relative: bool = Field(
        True, description="divide each layer's difference by the mean square of the teacher's states there"
    )
    divergence: float = Field(0.0, ge=0, description="weight of the KL divergence of LIVE")
    lr: float = Field(5e-3, gt=0, description="peak learning rate of AdamW")
    init_std: float = Field(0.001, ge=0, description="standard deviation of the vectors' initial values")
    weight_std: float = Field(
        0.02, ge=0, description="standard deviation of the initial weights that make magnitudes of queries"
    )
    bias: float = Field(-2.0, description="initial bias of the magnitudes, before the sigmoid")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are added up for a step")

    @model_validator(mode="after")
    def _check_loss(self) -> MimicOptions:
        if not (self.align or self.divergence or self.hard_loss_weight):
            raise ValueError("align, divergence and hard_loss_weight are 0: there is nothing to minimise")
        if self.temperature_schedule == "learned" and not self.divergence:
            raise ValueError("temperature_schedule=learned has nothing to learn from without divergence")
        return self
