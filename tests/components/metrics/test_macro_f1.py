"""Macro-F1 against a plain count, label by label."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.metrics.macro_f1 import MacroF1
from icltool.contracts import CorpusMetric, Judgement, Metric

LABELS = ("negative", "neutral", "positive")


def plain_macro_f1(truth: list[str], answers: list[str]) -> float:
    """The twin: precision and recall of each label that occurs in the truth, by counting."""
    scores = []
    for label in set(truth):
        hits = sum(t == a == label for t, a in zip(truth, answers, strict=True))
        precision = hits / max(1, answers.count(label))
        recall = hits / truth.count(label)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(scores) / len(scores)


def judged(truth: list[str], answers: list[str]) -> list[Judgement]:
    return [Judgement(a, (t,)) for t, a in zip(truth, answers, strict=True)]


pairs = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, "no label"]), st.integers(0, 3)),
    min_size=1,
    max_size=30,
)


@settings(deadline=None)
@given(pairs)
def test_equal_to_the_count_on_repeated_answers(drawn: list[tuple[str, str, int]]) -> None:
    truth, answers, times = map(list, zip(*drawn, strict=True))
    weights = np.stack([np.ones(len(times)), np.array(times, dtype=np.float64)])
    figures = MacroF1().figures(judged(truth, answers), weights)
    assert figures[0] == pytest.approx(plain_macro_f1(truth, answers), abs=1e-12)
    repeated = [(t, a) for t, a, n in drawn for _ in range(n)]
    if repeated:
        assert figures[1] == pytest.approx(plain_macro_f1(*map(list, zip(*repeated, strict=True))), abs=1e-12)
    else:
        assert math.isnan(figures[1])


def test_values_worked_by_hand() -> None:
    """Truth a a a b, answers a a b b: F1 of a is 4/5, of b 2/3."""
    metric = MacroF1()
    assert isinstance(metric, Metric)
    assert isinstance(metric, CorpusMetric)
    (figures,) = metric.figures(judged(list("aaab"), list("aabb")), np.ones((1, 4)))
    assert figures == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metric.score(list("aabb"), [[c] for c in "aaab"]).tolist() == [1, 1, 0, 1]


def test_labels_are_compared_as_in_accuracy_and_answers_without_references_count_as_alarms() -> None:
    metric = MacroF1()
    assert metric.figures(judged(["Good", "bad"], [" good", "BAD"]), np.ones((1, 2))).tolist() == [1.0]
    lonely = [*judged(["good", "bad"], ["good", "bad"]), Judgement("good", ())]
    assert metric.figures(lonely, np.ones((1, 3))).tolist() == [pytest.approx((2 / 3 + 1) / 2)]
    assert np.isnan(metric.figures([], np.ones((2, 0)))).all()
