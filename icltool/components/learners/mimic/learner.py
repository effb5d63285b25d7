"""The learner `mimic`: trains one vector per attention head, with a magnitude that its query decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icltool.components.learners.mimic.options import MimicOptions
from icltool.components.learners.options import parsed
from icltool.components.learners.steering import card
from icltool.components.learners.steering.answers import hooked_model
from icltool.components.learners.steering.draws import Draws
from icltool.contracts import Progress, SteeringSet, TrainingOutcome


class Mimic:
    """MimIC, mimic in-context learning (arXiv 2504.08851). Options: see MimicOptions; ConfigError for a wrong one.

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

    option_model = MimicOptions

    def __init__(self, **options: Any) -> None:
        self.options = parsed("mimic", MimicOptions, options)

    def identity(self) -> dict[str, Any]:
        """The resolved options, defaults included, JSON-ready."""
        return self.options.identity()

    def steer(self, data: SteeringSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """See SteeringLearner. Raises ConfigError for a model whose heads cannot be shifted and for options that cannot be
        trained with, DataError for too few examples, KeyboardInterrupt on Ctrl-C: whole epochs are kept then."""
        from icltool.components.learners.lightning import seeded
        from icltool.components.learners.mimic.heads import LearnedHeads, MimicModule
        from icltool.components.learners.steering.fitting import fit

        options, model = self.options, hooked_model(data, "mimic")
        draws = Draws(data, options.max_train_size, seed)
        with seeded(seed):
            student = LearnedHeads(model, options)
            module = MimicModule(student, data, draws, options, seed)
        figures = {"examples": len(draws), "parameters": sum(p.numel() for p in student.parameters())}
        record = card.about_steering(data, options.shots, seed, self.identity(), figures)
        outcome = fit("mimic", module, folder, seed, record, progress)
        return TrainingOutcome(
            outcome.checkpoints, [{**h, "parameters": figures["parameters"]} for h in outcome.history]
        )
