"""Mean ranks of right answers, by hand and against counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from icltool.components.metrics.mean_rank import MeanRank, rank_of_right
from icltool.contracts import CorpusMetric, Judgement, Metric
from icltool.errors import DataError


def judged(right: int, *values: float) -> Judgement:
    choices = {f"choice {n}": value for n, value in enumerate(values)}
    return Judgement(max(choices, key=lambda c: choices[c]), (f"choice {right}", "another"), choices)


def figure(*judgements: Judgement) -> float:
    return float(MeanRank().figures(list(judgements), np.ones((1, len(judgements))))[0])


def test_the_protocols() -> None:
    assert isinstance(MeanRank(), Metric)
    assert isinstance(MeanRank(), CorpusMetric)


def test_one_is_best_and_ties_share_their_places() -> None:
    assert rank_of_right(judged(0, -1, -2, -3)) == 1
    assert rank_of_right(judged(2, -1, -2, -3)) == 3
    assert rank_of_right(judged(1, -1, -2, -2, -2)) == 3
    assert rank_of_right(judged(0, -1, -1)) == 1.5
    assert figure(judged(0, -1, -2, -3), judged(2, -1, -2, -3)) == 2


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9), st.data())
def test_the_rank_is_the_mean_place_in_a_sorted_list(values: list[int], data: st.DataObject) -> None:
    right = data.draw(st.integers(0, len(values) - 1))
    places = [place for place, value in enumerate(sorted(values, reverse=True), start=1) if value == values[right]]
    assert rank_of_right(judged(right, *values)) == sum(places) / len(places)


def test_weights_and_answers_without_references() -> None:
    judgements = [judged(0, -1, -2), judged(1, -1, -2), Judgement("x", (), {})]
    weights = np.array([[1, 3, 9], [0, 0, 5.0]])
    np.testing.assert_array_equal(MeanRank().figures(judgements, weights), [7 / 4, np.nan])


def test_scores_are_whether_the_answer_is_right() -> None:
    assert MeanRank().score(["A", "b"], [["a"], ["c"]]).tolist() == [1, 0]


@pytest.mark.parametrize("judgement", [Judgement("x", ("x",), {}), Judgement("x", ("y",), {"x": -1.0})])
def test_answers_without_ranked_choices_are_an_error(judgement: Judgement) -> None:
    with pytest.raises(DataError, match="mean-rank needs the log-probability of each choice"):
        figure(judgement)
