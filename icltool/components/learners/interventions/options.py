"""The options of all learners that train an intervention by gradient descent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from icltool.components.learners.options import LearnerOptions, Loggers, OwnTrainerOptions, none_of


class InterventionOptions(LearnerOptions):
    """The teacher's prompts, the loss, and the length of the training. Defaults are those of LIVE (arXiv 2406.13185, section
    4.1)."""

    shots: int = Field(32, ge=1, description="demonstrations in the teacher's prompt")
    max_train_size: int = Field(8000, ge=2, description="maximum number of training examples, drawn at random")
    teacher_draws: Annotated[int | None, BeforeValidator(none_of)] = Field(
        None,
        ge=1,
        description="sets of demonstrations per example, for which the teacher's answers are stored, so that its long prompts "
        "are run once; default: a new set in every epoch, and nothing is stored",
    )
    teacher_top_k: int = Field(
        256,
        ge=0,
        description="number of most probable tokens of each distribution to store, with the total probability of the others; 0 "
        "stores all tokens",
    )
    hard_loss_weight: float = Field(
        0.5, ge=0, description="weight of the cross-entropy; the weight of the KL divergence is 1"
    )
    temperature: float = Field(
        1.0, gt=0, description="temperature of both distributions; the KL divergence is scaled by its square"
    )
    temperature_schedule: Literal["fixed", "decay", "learned"] = Field(
        "fixed", description="temperature over the training: fixed; decay, linearly to 1; or learned, at least 1"
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(1e-3, ge=0, description="weight decay of AdamW")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises, before it falls by a cosine"
    )
    clip: float = Field(1.0, ge=0, description="maximum norm of the gradient; 0 turns clipping off")
    epochs: int = Field(10, ge=1, description="number of passes over the training examples")
    batch_size: int = Field(8, ge=1, description="examples per batch on each device")
    accumulate: int = Field(2, ge=1, description="batches whose gradients are accumulated for one optimiser step")
    grad_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass, which saves memory and takes longer"
    )
    precision: str | None = Field(
        None,
        description="precision of Lightning's Trainer; default: mixed precision in the dtype of the weights, or 32-true "
        "for float32",
    )
    trainer: OwnTrainerOptions = Field(
        default_factory=dict, description="further options of Lightning's Trainer, such as --trainer devices=2"
    )
    loggers: Loggers = Field((), description="loggers in addition to the CSV file")

    @model_validator(mode="after")
    def _check_cache(self) -> InterventionOptions:
        if self.teacher_draws is not None and self.teacher_top_k and self.temperature_schedule != "fixed":
            raise ValueError(
                f"temperature_schedule={self.temperature_schedule} needs whole stored answers: set teacher_top_k=0"
            )
        return self

    def identity(self) -> dict[str, object]:
        """The options that determine the result, JSON-ready."""
        unused = set() if self.teacher_draws else {"teacher_top_k"}
        return self.model_dump(mode="json", exclude={"loggers"} | unused)
