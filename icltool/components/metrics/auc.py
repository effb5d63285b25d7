"""Area under the ROC curve of a classification whose choices were ranked by perplexity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from icltool.components.metrics.accuracy import exact_matches, plain
from icltool.contracts.arrays import Float64Array
from icltool.contracts.metric import Judgement
from icltool.errors import DataError

_CELLS = 4_000_000  # numbers of a block of weightings in memory at a time (32 MB)


class Auc:
    """The probability that an example of the positive class gets a higher score than one of the others, ties a half.

    The score is the softmax over the mean log-probabilities per token of an answer's choices: the model's probability
    of the class, normalised over the choices. With two choices the positive class is the second one, in the data
    set's order ("negative", "positive"); with more, the figure is the mean over the classes, each against the rest.
    An answer's true class is its first reference.
    """

    name = "auc"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = ("classification",)

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: the area has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n]: whether each answer is right. Their mean is the accuracy; the metric is `figures`."""
        return exact_matches(predictions, references)

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        """float64 [R]: the area under each weighting; NaN where a class that is averaged over, or the rest beside it,
        has no weight. Answers without references count for nothing.

        Raises DataError where answers were generated, or differ in their choices.
        """
        known = [j for j in judgements if j.references]
        if not known:
            return np.full(len(weights), np.nan)
        of_known = weights[:, [bool(j.references) for j in judgements]]
        choices = tuple(known[0].log_probs)
        if len(choices) < 2 or any(tuple(j.log_probs) != choices for j in known):
            raise DataError(
                "auc needs the log-probability of each choice, and the same choices for all answers",
                "it judges the task 'classification'; use accuracy or macro-f1 where labels were generated",
            )
        scores = class_probabilities(np.array([[j.log_probs[c] for c in choices] for j in known]))
        truth = np.array([plain(j.references[0]) for j in known])
        labels = [plain(choice) for choice in choices]
        if len(choices) == 2:
            return weighted_area(scores[:, 1], truth == labels[1], of_known)
        areas = [weighted_area(scores[:, i], truth == label, of_known) for i, label in enumerate(labels)]
        result: Float64Array = np.mean(areas, axis=0)
        return result


def class_probabilities(log_probs: Float64Array) -> Float64Array:
    """Softmax over the last axis."""
    odds = np.exp(log_probs - log_probs.max(axis=-1, keepdims=True))
    probabilities: Float64Array = odds / odds.sum(axis=-1, keepdims=True)
    return probabilities


def weighted_area(scores: Float64Array, positive: np.ndarray, weights: Float64Array) -> Float64Array:
    """float64 [R]: the area for scores [n] of examples of which `positive` [n] are of the class, under weights [R, n].

    It is the weight of the pairs (positive, other) that are in order, those with equal scores counting half, over the
    weight of all pairs (the Mann-Whitney U statistic, normalised). NaN where a side has no weight.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # where each distinct score begins
    sign = positive[order]
    areas = np.full(len(weights), np.nan)
    step = max(1, _CELLS // max(1, len(scores)))
    for low in range(0, len(weights), step):
        block = weights[low : low + step, order]
        of_class = np.add.reduceat(block * sign, starts, axis=1)
        of_rest = np.add.reduceat(block * ~sign, starts, axis=1)
        below = np.cumsum(of_rest, axis=1) - of_rest / 2
        pairs = of_class.sum(axis=1) * of_rest.sum(axis=1)
        ordered = (of_class * below).sum(axis=1)
        np.divide(ordered, pairs, out=areas[low : low + step], where=pairs > 0)
    return areas
