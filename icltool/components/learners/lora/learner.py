"""The learner `lora`: low-rank adapters of the decoder's self-attention, trained on the same data as LIVE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icltool.components.interventions.lora import need_peft
from icltool.components.learners.lora.options import LoRAOptions
from icltool.components.learners.options import parsed
from icltool.components.learners.steering import card
from icltool.components.learners.steering.answers import hooked_model
from icltool.components.learners.steering.draws import Draws
from icltool.contracts import Progress, SteeringSet, TrainingOutcome


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
        from icltool.components.learners.lightning import seeded
        from icltool.components.learners.lora.adapters import LearnedAdapters, LoraModule
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
