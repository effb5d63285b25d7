"""The learner `mimic`: trains one vector per attention head, with a magnitude computed from the head's query."""

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

    With keys and values of demonstrations before its own, a head computes (1 - mu) SA(q, K) + mu SA(q, K_D), where mu =
    Z_1 / (Z_1 + Z_2), and Z_1 and Z_2 are the sums of exp(q k) over the keys of the demonstrations and of the query (section
    3). The learned vector v approximates SA(q, K_D) - SA(q, K), and mu v is added to the head's result.

    Differences from the paper: there a linear function of the query approximates log Z_1, and Z_2 is computed. Fused attention
    does not expose Z_2, so here the linear function approximates log Z_1 - log Z_2. It reads the query before rotation, as
    projected. Its bias starts at -2, so magnitudes start at 0.12: in the paper, too, Z_1 is initially small compared with
    Z_2, a sum over many keys. States are aligned at the output of each decoder layer and at the tokens that predict the
    answer (published runs: feed-forward outputs at all tokens of query and answer), relative to their size in each layer,
    since residual streams grow and the last layer would otherwise dominate. The cross-entropy is that of the answer alone.
    """

    name = "mimic"
    options_model = MimicOptions
    options: MimicOptions

    def module(self, model: SupportsDecoderHooks, data: InterventionSet, draws: Draws, seed: int) -> InterventionModule:
        """See GradientLearner."""
        from icltool.components.learners.mimic.heads import LearnedHeads, MimicModule

        return MimicModule(LearnedHeads(model, self.options), data, draws, self.options, seed)
