"""The learner `live`: trains in-context vectors that stand in for demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icltool.components.learners.live.options import LiveOptions, parse_options
from icltool.components.learners.steering import card
from icltool.components.learners.steering.answers import hooked_model
from icltool.components.learners.steering.draws import Draws
from icltool.contracts import Progress, SteeringSet, TrainingOutcome


class Live:
    """LIVE, learnable in-context vectors (arXiv 2406.13185). Options: see LiveOptions; ConfigError for a wrong one.

    The teacher is the frozen LVLM with demonstrations in its prompt, the student the same LVLM without any, its states
    shifted in every decoder layer by a learned vector.
    """

    option_model = LiveOptions

    def __init__(self, **options: Any) -> None:
        self.options = parse_options(options)

    def identity(self) -> dict[str, Any]:
        """The resolved options, defaults included, JSON-ready."""
        return self.options.identity()

    def steer(self, data: SteeringSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See SteeringLearner. Raises ConfigError for a model without hooks and for options that cannot be trained with,
        DataError for too few examples, KeyboardInterrupt on Ctrl-C: whole epochs are kept then."""
        from icltool.components.learners.lightning import seeded
        from icltool.components.learners.live.vectors import LiveVectors
        from icltool.components.learners.steering.fitting import fit
        from icltool.components.learners.steering.module import SteeringModule

        options, model = self.options, hooked_model(data, "live")
        draws = Draws(data, options.max_train_size, seed)
        with seeded(seed):
            module = SteeringModule(LiveVectors(model, options), data, draws, options, seed)
        record = card.about_steering(data, options.shots, seed, self.identity(), {"examples": len(draws)})
        return fit("live", module, folder, seed, record, progress)
