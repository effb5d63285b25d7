"""Draws around excluded rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.retrievers.rows import draw_rows, embeddings
from icltool.testing import make_index


@given(st.integers(0, 60), st.sets(st.integers(0, 59)), st.integers(0, 2**32), st.data())
@settings(max_examples=200, deadline=None)
def test_draws_are_distinct_allowed_and_nested(total: int, left_out: set[int], seed: int, data: st.DataObject) -> None:
    excluded = np.array(sorted(row for row in left_out if row < total), dtype=np.int64)
    left = total - len(excluded)
    count = data.draw(st.integers(0, left))
    rows = draw_rows(np.random.default_rng(seed), total, excluded, count)
    assert rows.dtype == np.int64
    assert len(set(rows.tolist())) == count
    assert set(rows.tolist()) <= set(range(total)) - set(excluded.tolist())
    everything = draw_rows(np.random.default_rng(seed), total, excluded, left)
    assert everything[:count].tolist() == rows.tolist()
    assert sorted(everything.tolist()) == sorted(set(range(total)) - set(excluded.tolist()))


def test_every_order_is_equally_likely() -> None:
    excluded = np.array([1, 3], dtype=np.int64)
    generator = np.random.default_rng(0)
    seen = dict.fromkeys(itertools.permutations((0, 2, 4, 5), 2), 0)
    for _ in range(6000):
        seen[tuple(draw_rows(generator, 6, excluded, 2).tolist())] += 1  # type: ignore[index]
    statistic = sum((n - 500) ** 2 / 500 for n in seen.values())
    assert statistic < 40  # chi-square with 11 degrees of freedom exceeds 40 once in 30,000


def test_more_rows_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot draw 3 of 2 rows"):
        draw_rows(np.random.default_rng(0), 4, np.array([0, 2]), 3)


def test_embeddings_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match=r"IndexSet\.text is not filled"):
        embeddings(make_index(12, needs=frozenset({"image"})), "text")
