"""Checks that apply to a sampler's pools and to a retriever's demonstrations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet
from icltool.testing.arrays import take
from icltool.testing.expectations import expect, expect_equal

Choose = Callable[[QuerySet], IntArray]


def check_rows(chosen: IntArray, index: IndexSet, queries: QuerySet, count: int, what: str) -> None:
    """Checks int64 [Q, count], existing rows, distinct per query, without leaks."""
    expect(isinstance(chosen, np.ndarray), f"{what} must be a numpy array, not {type(chosen).__name__}")
    expected = (len(queries), count)
    expect(chosen.shape == expected, f"{what} for {expected[0]} queries must have shape {expected}, not {chosen.shape}")
    expect(chosen.dtype == np.int64, f"{what} must be int64, not {chosen.dtype}")
    if not chosen.size:
        return
    expect(
        chosen.min() >= 0 and chosen.max() < len(index),
        f"{what} must be rows 0 to {len(index) - 1} of the index set (not ids); found {chosen.min()} to {chosen.max()}",
    )
    for position, rows in enumerate(chosen):
        expect(len(np.unique(rows)) == count, f"{what} of query {queries.ids[position]} repeat a row: {rows.tolist()}")
        leaks = np.intersect1d(rows, index.leaking_rows(queries, position))
        expect(
            len(leaks) == 0,
            f"{what} of query {queries.ids[position]} hold rows {leaks.tolist()}, which leak its answer "
            "(see IndexSet.leaking_rows)",
        )


def check_repeats(choose: Choose, queries: QuerySet, what: str) -> IntArray:
    """Checks that repeated calls give the same; returns it."""
    whole = choose(queries)
    state = np.random.get_state()  # components must not draw from numpy's global one
    try:
        for global_seed in (1, 2):
            np.random.seed(global_seed)
            expect_equal(choose(queries), whole, f"{what} differ between two calls with the same arguments")
    finally:
        np.random.set_state(state)
    return whole


def check_independence(choose: Choose, queries: QuerySet, what: str) -> None:
    """Checks that queries get the same rows alone, in halves and in another order, and in repeated calls."""
    whole = check_repeats(choose, queries, what)
    order = np.random.default_rng(5).permutation(len(queries))
    expect_equal(choose(take(queries, order)), whole[order], f"{what} depend on the order of the queries")
    half = np.arange(0, len(queries), 2)
    expect_equal(choose(take(queries, half)), whole[half], f"{what} depend on which other queries are in the call")
    for position in range(min(4, len(queries))):
        alone = choose(take(queries, [position]))
        expect_equal(alone[0], whole[position], f"{what} of a query alone differ from those in a batch")
