"""The learner `lora`: low-rank adapters of the decoder's self-attention, trained on the same data as LIVE."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from icltool.components.learners.options import names_of, parsed
from icltool.components.learners.steering.options import SteeringOptions
from icltool.contracts import Progress, SteeringSet, TrainingOutcome


class LoRAOptions(SteeringOptions):
    """Everything that decides what LoRA learns from its examples and a seed."""

    rank: int = Field(8, ge=1, description="rank of every adapter")
    lora_alpha: float = Field(16.0, gt=0, description="what an adapter adds is scaled by lora_alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of an adapter's inputs that is left out while training")
    targets: tuple[Literal["query", "value", "output"], ...] = Field(
        ("query", "value"), min_length=1, description="projections of the self-attention that have adapters"
    )
    distil: bool = Field(
        False, description="minimise the KL divergence of LIVE, too; without it no demonstrations are read"
    )
    shots: int = Field(32, ge=1, description="demonstrations that the teacher sees, with distil=true")
    hard_loss_weight: float = Field(1.0, ge=0, description="weight of the cross-entropy")
    lr: float = Field(1e-4, gt=0, description="peak learning rate of AdamW")

    @field_validator("targets", mode="before")
    @classmethod
    def _split_targets(cls, value: Any) -> Any:
        return names_of(value)

    @field_validator("targets")
    @classmethod
    def _check_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _check_loss(self) -> LoRAOptions:
        if not (self.hard_loss_weight or self.distil):
            raise ValueError("hard_loss_weight is 0: there is nothing to minimise without distil=true")
        if self.temperature_schedule == "learned" and not self.distil:
            raise ValueError("temperature_schedule=learned has nothing to learn from without distil=true")
        return self


class Lora:
    """LoRA (Hu et al. 2021, arXiv:2106.09685) through PEFT. Options: see LoRAOptions; ConfigError for a wrong one.

    Cross-entropy of the answers after prompts without demonstrations is minimised. Where the paper draws A from a normal
    distribution, PEFT draws it from a uniform one.
    """

    option_model = LoRAOptions

    def __init__(self, **options: Any) -> None:
        self.options = parsed("lora", LoRAOptions, options)

    def identity(self) -> dict[str, Any]:
        """The resolved options, defaults included, JSON-ready."""
        return self.options.identity()

    def steer(self, data: SteeringSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See SteeringLearner. Raises ConfigError where PEFT is missing or cannot wrap the model's projections and for options
        that cannot be trained with, DataError for too few examples, KeyboardInterrupt on Ctrl-C: whole epochs are kept then."""
        from icltool.components.interventions.lora import need_peft
        from icltool.components.learners.lightning import seeded
        from icltool.components.learners.lora_adapters import LearnedAdapters, LoraModule
        from icltool.components.learners.steering import card
        from icltool.components.learners.steering.answers import hooked_model
        from icltool.components.learners.steering.draws import Draws
        from icltool.components.learners.steering.fitting import fit

        options, model = self.options, hooked_model(data, "lora")
        need_peft()
        draws = Draws(data, options.max_train_size, seed)
        with seeded(seed):
            student = LearnedAdapters(model, options)
            module = LoraModule(student, data, draws, options, seed)
        figures = {"examples": len(draws), "parameters": sum(p.numel() for p in student.parameters())}
        progress.say(
            f"lora: {figures['parameters']} parameters of rank {options.rank} in {len(model.decoder_layers())} layers"
        )
        record = card.about_steering(data, options.shots if options.distil else 0, seed, self.identity(), figures)
        outcome = fit("lora", module, folder, seed, record, progress)
        return TrainingOutcome(
            outcome.checkpoints, [{**h, "parameters": figures["parameters"]} for h in outcome.history]
        )
