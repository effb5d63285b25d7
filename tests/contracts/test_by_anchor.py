"""A training set by anchor, against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from icltool.contracts import SequenceFigures, TrainingSet
from icltool.testing import make_index, make_training_set

INDEX = make_index(12)


@st.composite
def training_sets(draw: st.DrawFn) -> TrainingSet:
    """Anchors with up to five sequences each, in any order, some of equal score; pools at one shot, where they are known."""
    shots = draw(st.integers(1, 3))
    rows: list[tuple[int, list[int], float]] = []
    pools: dict[int, list[int]] = {}
    for anchor in draw(st.lists(st.integers(0, 11), unique=True, max_size=5)):
        pool = draw(st.lists(st.integers(0, 11), unique=True, min_size=1, max_size=6))
        pools[anchor] = [*pool, *[-1] * (6 - len(pool))]
        if shots == 1:
            sets = [[row] for row in draw(st.permutations(pool))[: draw(st.integers(1, 5))]]
        else:
            lists = st.lists(st.integers(0, 11), unique=True, min_size=1, max_size=shots)
            sets = [[*part, *[-1] * (shots - len(part))] for part in draw(st.lists(lists, min_size=1, max_size=5))]
        rows += [(anchor, part, draw(st.sampled_from([-0.5, 0.0, 0.25, 1.0]))) for part in sets]
    rows = draw(st.permutations(rows))
    scores = np.array([score for _, _, score in rows], np.float64)
    anchors = np.array([anchor for anchor, _, _ in rows], np.int64)
    known, figures = draw(st.booleans()), None
    if draw(st.booleans()):
        figures = SequenceFigures(scores - anchors, scores * 2, -1.0 * anchors, -2.0 * anchors)
    return TrainingSet(
        INDEX,
        anchors,
        np.array([part for _, part, _ in rows], np.int64).reshape(len(rows), shots),
        scores,
        candidate_rows=np.array([pools[a] for a in anchors.tolist()], np.int64).reshape(-1, 6) if known else None,
        figures=figures,
    )


@given(training_sets())
def test_it_is_what_loops_give(data: TrainingSet) -> None:
    expected = data.by_anchor()
    anchors = sorted(set(data.query_rows.tolist()))
    assert expected.anchor_rows.tolist() == anchors
    widest = 0
    for place, anchor in enumerate(anchors):
        own = sorted(np.flatnonzero(data.query_rows == anchor).tolist(), key=lambda row: -data.scores[row])
        sets = data.icd_rows[own].tolist()
        if data.icd_rows.shape[1] == 1 and data.candidate_rows is not None:
            pool = data.candidate_rows[own[0]].tolist()
            sets += [[row] for row in pool if row >= 0 and [row] not in sets]
        widest = max(widest, len(sets))
        filling = expected.sets.shape[1] - len(sets)
        assert expected.sets[place].tolist() == [*sets, *[[-1] * data.icd_rows.shape[1]] * filling]
        lacking = [math.nan] * (expected.sets.shape[1] - len(own))
        tables = [(expected.scores, data.scores)]
        if data.figures is not None:
            tables += [(expected.values, data.figures.values), (expected.log_probs, data.figures.log_probs)]
            assert expected.base_values[place] == -anchor
            assert expected.base_log_probs[place] == -2 * anchor
        else:
            for column in (
                expected.values[place],
                expected.log_probs[place],
                expected.base_values[place],
                expected.base_log_probs[place],
            ):
                assert np.isnan(column).all()
        for table, column in tables:
            np.testing.assert_array_equal(table[place], [*column[own].tolist(), *lacking])
    assert expected.sets.shape == (len(anchors), widest, data.icd_rows.shape[1])


def test_candidates_are_those_of_one_shot() -> None:
    anchors = make_training_set(shots=1).by_anchor()
    assert anchors.candidate_rows.shape[1] == 12
    assert (anchors.candidate_rows >= 0).all()
    assert (np.isnan(anchors.scores).sum(axis=1) > 0).any()
    with pytest.raises(ValueError, match="these have 2 shots"):
        make_training_set(shots=2).by_anchor().candidate_rows  # noqa: B018
