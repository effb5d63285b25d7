"""The distribution of answers to GQA's questions, by hand and against counting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.metrics.gqa_distribution import GROUP, GqaDistribution, GqaDistributionOptions
from icltool.contracts import CorpusMetric, Judgement, Metric
from icltool.errors import DataError
from icltool.results.grid import lower_is_better
from icltool.testing.abilities import expect_judging_abilities


def judged(answer: str, right: str, group: str = "color") -> Judgement:
    return Judgement(answer, (right,), {}, {GROUP: group} if group else {})


def figure(judgements: Sequence[Judgement], norm: str = "strict") -> float:
    metric = GqaDistribution(GqaDistributionOptions.model_validate({"norm": norm}))
    return float(metric.figures(judgements, np.ones((1, len(judgements))))[0])


def counted(judgements: Sequence[Judgement]) -> float:
    """The definition, with counters."""
    right: dict[str, Counter[str]] = {}
    given: dict[str, Counter[str]] = {}
    for one in judgements:
        if GROUP in one.aspects:
            right.setdefault(one.aspects[GROUP], Counter())[one.references[0]] += 1
            given.setdefault(one.aspects[GROUP], Counter())[one.answer] += 1
    total = sum(sum(group.values()) for group in right.values())
    if not total:
        return math.nan
    weighed = 0.0
    for name, group in right.items():
        chi = sum((given[name][answer] - count) ** 2 / count for answer, count in group.items())
        weighed += chi * sum(group.values())
    return weighed / total / 100


def test_the_protocols() -> None:
    assert isinstance(GqaDistribution(), Metric)
    assert isinstance(GqaDistribution(), CorpusMetric)
    expect_judging_abilities(GqaDistribution())
    assert lower_is_better("gqa-distribution:norm=lmms")
    assert not lower_is_better("exact-match:norm=lmms")


def test_by_hand() -> None:
    assert figure([judged("red", "red"), judged("blue", "blue")]) == 0
    assert figure([judged("red", "blue"), judged("blue", "red")]) == 0  # wrong, but distributed alike
    # red: 2 instead of 1, blue: 0 instead of 1; the other group is right, and half as large
    rows = [judged("red", "red"), judged("red", "blue"), judged("cup", "cup", "thing")]
    assert figure(rows) == pytest.approx((2 * 2 + 0 * 1) / 3 / 100)
    assert figure([judged("pink", "red"), judged("pink", "red")]) == pytest.approx(2 / 100)  # pink costs nothing
    assert figure([judged("cup", "red"), judged("red", "cup", "thing")]) == pytest.approx(1 / 100)  # each in its group


def test_questions_without_a_group_are_left_out() -> None:
    rows = [judged("red", "red"), judged("yes", "no", ""), Judgement("x", (), {}, {GROUP: "color"})]
    assert figure(rows) == 0
    assert math.isnan(figure([]))
    with pytest.raises(DataError, match="none of these is in one"):
        figure(rows[1:])


def test_answers_can_be_normalised() -> None:
    rows = [judged("Red.", "red"), judged("blue", "blue")]
    assert figure(rows) == pytest.approx(1 / 100)
    assert figure(rows, "lmms") == 0


_ANSWERS, _GROUPS = st.sampled_from(["red", "blue", "cup"]), st.sampled_from(["color", "thing", ""])


@settings(deadline=None)
@given(st.lists(st.builds(judged, _ANSWERS, _ANSWERS, _GROUPS), max_size=12), st.data())
def test_weights_count_answers_repeatedly(rows: list[Judgement], data: st.DataObject) -> None:
    rows = [judged("red", "blue"), *rows]
    times = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)), max_size=3))
    figures = GqaDistribution().figures(rows, np.array(times, dtype=np.float64).reshape(len(times), len(rows)))
    expected = [counted([row for row, n in zip(rows, counts, strict=True) for _ in range(n)]) for counts in times]
    np.testing.assert_allclose(figures, expected, atol=1e-12)


def test_scores_are_whether_the_answer_is_right() -> None:
    assert GqaDistribution().score(["A", "b"], [["A"], ["B"]]).tolist() == [1, 0]
