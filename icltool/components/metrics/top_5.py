"""How often the right answer is among the five best of the choices that a model ranked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from icltool.components.metrics.accuracy import exact_matches
from icltool.components.metrics.mean_rank import rank_of_right
from icltool.contracts.arrays import Float64Array
from icltool.contracts.metric import Judgement

#: The number of choices among which the right one counts.
BEST = 5


class TopFive:
    """The share of answers whose first reference is among the five choices of the highest log-probability. Choices of equal
    log-probability share the mean of their places."""

    name = "top-5"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = ("classification", "multiple-choice", "inference-choice")

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: ranks have no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n]: whether each answer is right (has rank 1). The metric is `figures`."""
        return exact_matches(predictions, references)

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        """float64 [R]: the weighted share under each weighting; NaN where nothing has weight. Answers without references count
        for nothing.

        Raises DataError where answers were generated, or the right one is not among the choices.
        """
        known = [judgement for judgement in judgements if judgement.references]
        among = np.array([rank_of_right(judgement, self.name) <= BEST for judgement in known], dtype=np.float64)
        of_known = weights[:, [bool(judgement.references) for judgement in judgements]]
        total = of_known.sum(axis=1)
        figures = np.full(len(weights), np.nan)
        np.divide(of_known @ among, total, out=figures, where=total > 0)
        return figures
