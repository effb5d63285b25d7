"""The share of right answers among the five best choices."""

from __future__ import annotations

import numpy as np
import pytest

from icltool.components.metrics.top_5 import TopFive
from icltool.contracts import CorpusMetric, Judgement, Metric
from icltool.errors import DataError


def judged(right: int, count: int = 8) -> Judgement:
    """Choice 0 is the most probable, choice 1 the next, and so on."""
    choices = {f"choice {n}": -float(n) for n in range(count)}
    return Judgement("choice 0", (f"choice {right}",), choices)


def test_the_protocols() -> None:
    assert isinstance(TopFive(), Metric)
    assert isinstance(TopFive(), CorpusMetric)


def test_the_fifth_counts_and_the_sixth_does_not() -> None:
    judgements = [judged(0), judged(4), judged(5), judged(7)]
    weights = np.array([[1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 2]], dtype=np.float64)
    assert TopFive().figures(judgements, weights).tolist() == [0.5, 0.5, 0]
    assert np.isnan(TopFive().figures(judgements, np.zeros((1, 4)))[0])


def test_choices_that_are_all_alike_share_their_places() -> None:
    alike = Judgement("choice 0", ("choice 9",), {f"choice {n}": -1.0 for n in range(10)})
    assert TopFive().figures([alike], np.ones((1, 1))).tolist() == [0], "the mean of ten places is 5.5"


def test_answers_that_were_written_cannot_be_judged() -> None:
    with pytest.raises(DataError, match="top-5 needs the log-probability of each choice"):
        TopFive().figures([Judgement("a", ("a",))], np.ones((1, 1)))
