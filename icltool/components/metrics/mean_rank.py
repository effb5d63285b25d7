"""The mean rank of the right answer among choices that a model ranked by likelihood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from icltool.components.metrics.accuracy import exact_matches, plain
from icltool.contracts.arrays import Float64Array
from icltool.contracts.metric import Judgement
from icltool.errors import DataError


class MeanRank:
    """The place of the right answer when the choices are in order of their mean log-probability per token, the best first: 1
    is best, (C + 1) / 2 is chance among C choices. Choices of equal log-probability share the mean of their places.

    The right answer is the first reference. Lower is better.
    """

    name = "mean-rank"
    scale = 1.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = ("inference-choice", "classification", "multiple-choice")

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: ranks have no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n]: whether each answer is right (has rank 1). Their mean is P@1; the metric is `figures`."""
        return exact_matches(predictions, references)

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        """float64 [R]: the weighted mean rank under each weighting; NaN where nothing has weight. Answers without references
        count for nothing.

        Raises DataError where answers were generated, or the right one is not among the choices.
        """
        known = [j for j in judgements if j.references]
        ranks = np.array([rank_of_right(j) for j in known], dtype=np.float64)
        of_known = weights[:, [bool(j.references) for j in judgements]]
        total = of_known.sum(axis=1)
        figures = np.full(len(weights), np.nan)
        np.divide(of_known @ ranks, total, out=figures, where=total > 0)
        return figures


def rank_of_right(judgement: Judgement, metric: str = "mean-rank") -> float:
    """The rank of the first reference among the choices; 1 is best, ties count as the mean of the places that they take.
    DataError where it is none of the choices, or there are none, in the name of the metric."""
    values = np.array(list(judgement.log_probs.values()), dtype=np.float64)
    reference = plain(judgement.references[0])
    right = [place for place, choice in enumerate(judgement.log_probs) if plain(choice) == reference]
    if not right:
        raise DataError(
            f"{metric} needs the log-probability of each choice, the right answer's among them",
            "it judges tasks whose choices are ranked, such as 'inference-choice'",
        )
    of_right = values[right[0]]
    better, equal = int((values > of_right).sum()), int((values == of_right).sum())
    return better + (equal + 1) / 2
