"""The learner `live`: trains in-context vectors that replace demonstrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.learner import GradientLearner
from icltool.components.learners.live.options import LiveOptions
from icltool.contracts import InterventionSet, SupportsDecoderHooks

if TYPE_CHECKING:
    from icltool.components.learners.interventions.module import InterventionModule


class Live(GradientLearner):
    """LIVE, learnable in-context vectors (arXiv 2406.13185).

    The teacher is the frozen LVLM with demonstrations in its prompt. The student is the same LVLM without demonstrations, but
    with a learned vector added to its states in every decoder layer.
    """

    name = "live"
    options_model = LiveOptions
    options: LiveOptions
    counts_parameters = False

    def module(self, model: SupportsDecoderHooks, data: InterventionSet, draws: Draws, seed: int) -> InterventionModule:
        """See GradientLearner."""
        from icltool.components.learners.interventions.module import InterventionModule
        from icltool.components.learners.live.vectors import LiveVectors

        return InterventionModule(LiveVectors(model, self.options), data, draws, self.options, seed)
