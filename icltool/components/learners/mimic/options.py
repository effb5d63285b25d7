"""Options of MimIC."""

from __future__ import annotations

from pydantic import Field, model_validator

from icltool.components.learners.interventions.options import InterventionOptions


class MimicOptions(InterventionOptions):
    """All options that, with the examples and a seed, determine what MimIC learns. With `teacher_draws`, the teacher's states
    are stored, too: layers x width numbers for each token of each answer, in the model's dtype."""

    max_train_size: int = Field(1000, ge=2, description="maximum number of training examples, drawn at random")
    align: float = Field(
        1.0,
        ge=0,
        description="weight of the mean squared difference between the states of student and teacher, over all layers",
    )
    align_relative: bool = Field(
        True, description="divide the difference at each layer by the mean square of the teacher's states at that layer"
    )
    divergence: float = Field(
        0.0, ge=0, description="weight of the KL divergence between the answers of student and teacher"
    )
    lr: float = Field(5e-3, gt=0, description="peak learning rate of AdamW")
    init_std: float = Field(0.001, ge=0, description="standard deviation of the vectors' initial values")
    weight_std: float = Field(
        0.02,
        ge=0,
        description="standard deviation of the initial weights that map a query to the magnitude of its shift",
    )
    bias: float = Field(-2.0, description="initial bias of that magnitude, before the sigmoid")
    accumulate: int = Field(1, ge=1, description="batches whose gradients are accumulated for one optimiser step")

    @model_validator(mode="after")
    def _check_loss(self) -> MimicOptions:
        if not (self.align or self.divergence or self.hard_loss_weight):
            raise ValueError("align, divergence and hard_loss_weight are all 0, which leaves nothing to minimise")
        if self.temperature_schedule == "learned" and not self.divergence:
            raise ValueError("temperature_schedule=learned needs a divergence above 0")
        return self
