"""The learner `mimic`: trains one vector per attention head, with a magnitude that its query decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.learner import GradientLearner
from icltool.components.learners.mimic.options import MimicOptions
from icltool.contracts import InterventionSet, SupportsDecoderHooks

if TYPE_CHECKING:
    from icltool.components.learners.interventions.module import InterventionModule


class Mimic(GradientLearner):
    """MimIC, mimic in-context learning (arXiv 2504.08851).

    With keys and values of demonstrations before its own, a head gives (1 - mu) SA(q, K) + mu SA(q, K_D), where mu =
    Z_1 / (Z_1 + Z_2), Z_1 and Z_2 the sums of exp(q k) over the demonstrations' keys and the query's own (section 3). The
    learned vector v stands for SA(q, K_D) - SA(q, K), and mu v is added to the head's result.

    What differs from the paper: there a linear function of the query stands for log Z_1, and Z_2 is computed. Fused attention
    does not give Z_2 away, so here the linear function stands for log Z_1 - log Z_2. It reads the query before rotation, as
    its projection gives it. Its bias starts at -2, magnitudes at 0.12: in the paper, too, Z_1 is small at first beside Z_2, a
    sum over many keys. States are aligned at the output of each decoder layer and at the tokens that predict the answer's
    (published runs take feed-forward outputs at all tokens of query and answer), relative to their size in each layer, since
    residual streams grow and the last layer would count for all others. Cross-entropy is that of the answer alone.
    """

    name = "mimic"
    options_model = MimicOptions
    options: MimicOptions

    def module(self, model: SupportsDecoderHooks, data: InterventionSet, draws: Draws, seed: int) -> InterventionModule:
        """See GradientLearner."""
        from icltool.components.learners.mimic.heads import LearnedHeads, MimicModule

        return MimicModule(LearnedHeads(model, self.options), data, draws, self.options, seed)
