"""The area under the ROC curve against counting all pairs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.metrics import auc
from icltool.components.metrics.auc import Auc, class_probabilities, weighted_area
from icltool.contracts import CorpusMetric, Judgement, Metric
from icltool.errors import DataError


def plain_area(scores: Sequence[float], positive: Sequence[bool], weights: Sequence[float]) -> float:
    """The twin: every pair of a positive and another example."""
    ordered = total = 0.0
    for s, p, v in zip(scores, positive, weights, strict=True):
        for t, q, w in zip(scores, positive, weights, strict=True):
            if p and not q:
                ordered += v * w * (1.0 if s > t else 0.5 if s == t else 0.0)
                total += v * w
    return ordered / total if total else math.nan


answers = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=1, max_size=25)


@settings(deadline=None)
@given(answers)
def test_equal_to_counting_pairs(drawn: list[tuple[int, bool, int]]) -> None:
    scores, positive, times = (np.array(column) for column in zip(*drawn, strict=True))
    weights = np.stack([np.ones(len(times)), times.astype(np.float64)])
    areas = weighted_area(scores.astype(np.float64), positive.astype(bool), weights)
    for row, area in zip(weights, areas, strict=True):
        assert area == pytest.approx(plain_area(scores, positive, row), abs=1e-12, nan_ok=True)


def judged(log_probs: Sequence[Sequence[float]], truth: Sequence[str], choices: Sequence[str]) -> list[Judgement]:
    return [
        Judgement(choices[int(np.argmax(row))], (label,), dict(zip(choices, row, strict=True)))
        for row, label in zip(log_probs, truth, strict=True)
    ]


def test_the_second_of_two_choices_is_the_positive_class() -> None:
    metric = Auc()
    assert isinstance(metric, Metric)
    assert isinstance(metric, CorpusMetric)
    log_probs = [(-1.0, -2.0), (-2.0, -1.0), (-1.0, -3.0), (-0.5, -0.6)]
    truth = ["negative", "positive", "positive", " Negative"]
    given_answers = judged(log_probs, truth, ("negative", "positive"))
    differences = [second - first for first, second in log_probs]  # the softmax rises with the difference
    expected = plain_area(differences, [t == "positive" for t in truth], [1.0] * 4)
    assert metric.figures(given_answers, np.ones((1, 4))).tolist() == [pytest.approx(expected)]
    assert 0 < expected < 1
    assert metric.score([j.answer for j in given_answers], [j.references for j in given_answers]).tolist() == [
        1,
        1,
        0,
        1,
    ]


def test_probabilities_are_normalised_over_the_choices() -> None:
    """An answer whose choices are both improbable is judged by their ratio."""
    assert (
        class_probabilities(np.array([[-800.0, -801.0], [-1.0, -2.0]])).tolist()
        == [[pytest.approx(1 / (1 + math.exp(-1))), pytest.approx(math.exp(-1) / (1 + math.exp(-1)))]] * 2
    )
    pair = judged([(-800.0, -801.0), (-1.0, -3.0)], ["yes", "no"], ("no", "yes"))
    assert Auc().figures(pair, np.ones((1, 2))).tolist() == [1.0]


def test_more_classes_are_averaged_one_against_the_rest() -> None:
    rng = np.random.default_rng(5)
    choices = ("a", "b", "c")
    log_probs = np.log(rng.dirichlet(np.ones(3), 40))
    truth = [choices[i] for i in rng.integers(0, 3, 40)]
    weights = rng.integers(0, 3, (3, 40)).astype(np.float64)
    figures = Auc().figures(judged(log_probs.tolist(), truth, choices), weights)
    scores = class_probabilities(log_probs)
    for row, figure in zip(weights, figures, strict=True):
        areas = [plain_area(scores[:, i], [t == c for t in truth], row) for i, c in enumerate(choices)]
        assert figure == pytest.approx(np.mean(areas), abs=1e-12)


def test_one_class_alone_has_no_area() -> None:
    given_answers = judged([(-1.0, -2.0), (-2.0, -1.0)], ["no", "yes"], ("no", "yes"))
    figures = Auc().figures(given_answers, np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    assert figures.tolist() == [1.0, pytest.approx(math.nan, nan_ok=True), pytest.approx(math.nan, nan_ok=True)]


def test_answers_without_references_or_log_probabilities() -> None:
    given_answers = judged([(-1.0, -2.0), (-2.0, -1.0)], ["no", "yes"], ("no", "yes"))
    lonely = [Judgement("yes", ()), *given_answers]
    assert Auc().figures(lonely, np.ones((1, 3))).tolist() == [1.0]
    assert np.isnan(Auc().figures(lonely[:1], np.ones((2, 1)))).all()
    for wrong in ([Judgement("yes", ("yes",))], [*given_answers, *judged([(-1.0, -2.0)], ["no"], ("no", "perhaps"))]):
        with pytest.raises(DataError, match="the log-probability of each choice"):
            Auc().figures(wrong, np.ones((1, len(wrong))))


def test_blocks_of_weightings_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    scores, positive, weights = rng.random(50), rng.random(50) < 0.4, rng.random((9, 50))
    whole = weighted_area(scores, positive, weights)
    monkeypatch.setattr(auc, "_CELLS", 100)
    assert weighted_area(scores, positive, weights).tolist() == whole.tolist()


@pytest.mark.benchmark
def test_speed_of_a_bootstrap() -> None:
    rng = np.random.default_rng(3)
    choices = ("negative", "positive")
    given_answers = judged(rng.random((5000, 2)).tolist(), [choices[i] for i in rng.integers(0, 2, 5000)], choices)
    weights = rng.multinomial(5000, np.full(5000, 1 / 5000), size=2000).astype(np.float64)
    started = time.perf_counter()
    figures = Auc().figures(given_answers, weights)
    print(f"2,000 weightings of 5,000 answers: {time.perf_counter() - started:.2f} s")
    assert np.isfinite(figures).all()
