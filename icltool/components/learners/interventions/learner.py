"""The base of learners that train an intervention by gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from icltool.components.learners.interventions import card
from icltool.components.learners.interventions.answers import hooked_model
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.options import InterventionOptions
from icltool.components.learners.options import OptionsLearner
from icltool.contracts import InterventionSet, Progress, SupportsDecoderHooks, TrainingOutcome

if TYPE_CHECKING:
    from icltool.components.learners.interventions.module import InterventionModule


class GradientLearner(OptionsLearner, ABC):
    """Trains a student's parameters on examples drawn by seed."""

    options: InterventionOptions
    #: Whether the number of parameters is among the figures.
    counts_parameters: ClassVar[bool] = True

    @property
    def shots(self) -> int:
        """Demonstrations read for each example."""
        return self.options.shots

    @abstractmethod
    def module(self, model: SupportsDecoderHooks, data: InterventionSet, draws: Draws, seed: int) -> InterventionModule:
        """The module to train, in its initial state. Raises ConfigError for a model that it does not support."""

    def announce(self, model: SupportsDecoderHooks, parameters: int, progress: Progress) -> None:
        """Prints a line on what is trained; by default nothing."""
        return

    def learn_intervention(self, data: InterventionSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See InterventionLearner. Raises ConfigError for a model without decoder hooks and for unsuitable options, DataError
        for too few examples, KeyboardInterrupt on Ctrl-C, which keeps complete epochs."""
        from icltool.components.learners.fitting.runner import fit
        from icltool.components.learners.fitting.trainer import seeded
        from icltool.components.learners.interventions.fitting import InterventionTraining

        model = hooked_model(data, self.name)
        draws = Draws(data, self.options.max_train_size, seed)
        with seeded(seed):
            module = self.module(model, data, draws, seed)
        parameters = sum(parameter.numel() for parameter in module.student.parameters())
        self.announce(model, parameters, progress)
        counted = {"parameters": parameters} if self.counts_parameters else {}
        figures = {"examples": len(draws), **counted}
        about = card.about_intervention(data, self.shots, seed, self.identity(), figures)
        with seeded(seed):
            outcome = fit(InterventionTraining(self.name, module, folder, about, progress))
        return TrainingOutcome(outcome.checkpoints, [{**record, **counted} for record in outcome.history])
