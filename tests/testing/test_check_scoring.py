"""The suites of scorers and metrics catch wrong components."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from icltool.contracts import Float64Array, ScoringRequest, ScoringSession, Valuation
from icltool.testing import check_metric, check_scorer


class Scorer:
    needs = frozenset({"model"})
    tie_tolerance = 0.0

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        return Valuation(np.array([s.log_prob for s in session.target_scores(requests)], dtype=np.float64))


class Swaps(Scorer):
    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        return Valuation(super().evaluate(session, requests).values[::-1])


class ComparesWithTheBatch(Scorer):
    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        values = super().evaluate(session, requests).values
        return Valuation(values - values.mean() if len(values) else values)


class SinglePrecision(Scorer):
    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        return Valuation(super().evaluate(session, requests).values.astype(np.float32))  # type: ignore[arg-type]


class FailsOnEmptySequences(Scorer):
    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        return Valuation(np.array([0.0 if r.demonstrations else np.nan for r in requests], dtype=np.float64))


class AsksWithoutNeed(Scorer):
    needs = frozenset()


class UsesUnnamedFeatures(Scorer):
    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        return Valuation(session.features("text", [r.query for r in requests])[:, 0].astype(np.float64))


class PositiveLogProbabilities(Scorer):
    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        values = super().evaluate(session, requests).values
        return Valuation(values, -values)


def test_check_scorer_accepts_a_right_one() -> None:
    check_scorer(Scorer)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (Swaps, "must not change a request's value|alone has the value"),
        (ComparesWithTheBatch, "must not change a request's value"),
        (SinglePrecision, "float64"),
        (FailsOnEmptySequences, "finite"),
        (AsksWithoutNeed, "do not name 'model'"),
        (UsesUnnamedFeatures, "do not name them"),
        (PositiveLogProbabilities, "cannot be positive"),
    ],
)
def test_check_scorer_catches(wrong: type[Scorer], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_scorer(wrong)


class Metric:
    """The share of the first reference's words that the answer holds."""

    name = "share"
    scale = 100.0

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        self.seen = sum(len(references) for references in corpus)

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        return np.array([self.one(p, r) for p, r in zip(predictions, references, strict=True)], dtype=np.float64)

    def one(self, prediction: str, references: Sequence[str]) -> float:
        words = references[0].split() if references else []
        return sum(word in prediction.split() for word in words) / max(1, len(words))


class ReturnsTheMean(Metric):
    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        return np.array(super().score(predictions, references).mean() if len(predictions) else 0.0)


class SkipsUnanswered(Metric):
    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        return np.array([self.one(p, r) for p, r in zip(predictions, references, strict=True) if r], dtype=np.float64)


class RewardsTheUnreferenced(Metric):
    def one(self, prediction: str, references: Sequence[str]) -> float:
        return super().one(prediction, references) if references else 1.0


class Backwards(Metric):
    def one(self, prediction: str, references: Sequence[str]) -> float:
        return 1.0 - super().one(prediction, references) if references else 0.0


class RelativeToTheBatch(Metric):
    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        scores = super().score(predictions, references)
        return scores / max(1e-9, float(scores.sum()))


class ShufflesItsScores(Metric):
    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        return np.sort(super().score(predictions, references))


def test_check_metric_accepts_a_right_one() -> None:
    check_metric(Metric)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (ReturnsTheMean, "must have shape"),
        (SkipsUnanswered, "must have shape"),
        (RewardsTheUnreferenced, "without references must score 0"),
        (Backwards, "scores less than one that belongs to another"),
        (RelativeToTheBatch, "another score"),
        (ShufflesItsScores, "order of the answers"),
    ],
)
def test_check_metric_catches(wrong: type[Metric], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_metric(wrong)
