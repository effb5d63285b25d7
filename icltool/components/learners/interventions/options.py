"""The options that every learner has whose intervention is trained by gradients."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from icltool.components.learners.options import LearnerOptions, Loggers, OwnTrainerOptions, none_of


class InterventionOptions(LearnerOptions):
    """What the teacher sees, what is minimised, and for how long. Defaults are LIVE's (arXiv 2406.13185, section 4.1)."""

    shots: int = Field(32, ge=1, description="demonstrations that the teacher sees")
    max_train_size: int = Field(8000, ge=2, description="examples that are learned from, at most, drawn by seed")
    teacher_draws: Annotated[int | None, BeforeValidator(none_of)] = Field(
        None,
        ge=1,
        description="sets of demonstrations for each example: the teacher's answers to these are kept, so that its long "
        "prompts are read once. none: another set in every epoch, and nothing to keep",
    )
    teacher_top_k: int = Field(
        256,
        ge=0,
        description="of each kept distribution, the most probable tokens, the others' mass as one; 0 keeps all, exactly",
    )
    hard_loss_weight: float = Field(0.5, ge=0, description="weight of the cross-entropy beside the KL divergence")
    temperature: float = Field(
        1.0, gt=0, description="temperature of both distributions; the KL divergence is scaled by its square"
    )
    temperature_schedule: Literal["fixed", "decay", "learned"] = Field(
        "fixed", description="decay: linearly to 1 over the training; learned: trained along, 1 at least"
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(1e-3, ge=0, description="weight decay of AdamW")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises; cosine after"
    )
    clip: float = Field(1.0, ge=0, description="largest norm of the gradient; 0 does not clip")
    epochs: int = Field(10, ge=1, description="passes over the examples")
    batch_size: int = Field(8, ge=1, description="examples in a batch, on each device")
    accumulate: int = Field(2, ge=1, description="batches whose gradients are added up for a step")
    grad_checkpointing: bool = Field(False, description="compute activations twice to hold fewer of them in memory")
    precision: str | None = Field(
        None,
        description="Lightning's precision (default: mixed precision of the kind that the model's weights are in; 32-true for "
        "float32)",
    )
    trainer: OwnTrainerOptions = Field(
        default_factory=dict, description="further options of Lightning's Trainer (--trainer devices=2, say)"
    )
    loggers: Loggers = Field((), description="loggers besides the CSV file")

    @model_validator(mode="after")
    def _check_cache(self) -> InterventionOptions:
        if self.teacher_draws is not None and self.teacher_top_k and self.temperature_schedule != "fixed":
            raise ValueError(
                f"with a temperature that changes ({self.temperature_schedule}) kept answers must be whole: teacher_top_k=0"
            )
        return self

    def identity(self) -> dict[str, object]:
        """The options that decide the result, JSON-ready."""
        unused = set() if self.teacher_draws else {"teacher_top_k"}
        return self.model_dump(mode="json", exclude={"loggers"} | unused)
