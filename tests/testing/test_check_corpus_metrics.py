"""The suite of metrics catches wrong corpus metrics, and the built-in ones pass it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from icltool.components.metrics.accuracy import exact_matches
from icltool.contracts import Float64Array, Judgement
from icltool.plugin.manager import component
from icltool.testing import check_metric


@pytest.mark.parametrize("name", ["accuracy", "macro-f1", "auc"])
def test_a_metric_of_classification_conforms(name: str) -> None:
    check_metric(lambda: component("metrics", name))


class RightShare:
    """The share of right answers as a corpus metric."""

    name = "right-share"
    scale = 100.0

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        pass

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        return exact_matches(predictions, references)

    def right(self, judgements: Sequence[Judgement]) -> Float64Array:
        return self.score([j.answer for j in judgements], [j.references for j in judgements])

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        return weights @ self.right(judgements) / weights.sum(axis=1)


class IgnoresWeights(RightShare):
    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        return np.full(len(weights), self.right(judgements).mean())


class ForgetsToDivide(RightShare):
    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        return weights @ self.right(judgements) / len(judgements)


class WeighsThePosition(RightShare):
    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        return super().figures(judgements, weights * np.arange(1, len(judgements) + 1))


class OneFigureForAll(RightShare):
    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        return np.array(super().figures(judgements, weights).mean() if len(weights) else 0.0)


class RelativeToTheFirst(RightShare):
    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        actual = super().figures(judgements, weights)
        return actual - actual[:1]


class Backwards(RightShare):
    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        return 1.0 - super().figures(judgements, weights)


class SquaresWeights(RightShare):
    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        return super().figures(judgements, weights**2)


def test_a_right_one_is_accepted() -> None:
    check_metric(RightShare)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (IgnoresWeights, "a weight of 2 must equal a repeated answer"),
        (ForgetsToDivide, "doubling all weights"),
        (WeighsThePosition, "depend on the order of the answers"),
        (OneFigureForAll, "must have shape"),
        (RelativeToTheFirst, "depends on the other weightings"),
        (Backwards, "right answers have the figure"),
        (SquaresWeights, "a weight of 2 must equal a repeated answer"),
    ],
)
def test_a_wrong_one_is_caught(wrong: type[RightShare], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_metric(wrong)
