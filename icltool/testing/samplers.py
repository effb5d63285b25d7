"""The conformance suite of samplers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet, Sampler
from icltool.contracts.arrays import ARRAYS, encoder_of
from icltool.errors import DataError
from icltool.testing.arrays import make_anchors, make_index
from icltool.testing.expectations import built, expect, expect_error, expect_needs
from icltool.testing.selection import check_independence, check_rows


def check_sampler(sampler: Sampler | Callable[[], Sampler], *, size: int = 12, count: int = 240, dim: int = 16) -> None:
    """Checks a sampler, or a class or factory that makes one, against `icltool.Sampler`.

    Pools of `size` rows are drawn from a made-up index set of `count` rows with `dim`-dimensional embeddings, in which images
    and near-duplicate groups recur and ids are not row numbers. Checks `needs`; shape, dtype, distinct rows and absence of
    leaks; that the same seed gives the same pools, independent of the other anchors and their order; a pool of all remaining
    rows, and DataError for one more; that only the arrays in `needs` are used, and none is written to. Raises AssertionError
    with a description of the fault.
    """

    def choose(anchors: QuerySet, pool: int = size, seed: int = 7) -> IntArray:
        pools: IntArray = built(sampler, "sample").sample(index, anchors, pool, seed)
        return pools

    first = built(sampler, "sample")
    needs = expect_needs(first, frozenset({*ARRAYS, *filter(encoder_of, first.needs)}))
    index = make_index(count, dim, needs=needs)
    anchors = make_anchors(index, np.random.default_rng(3).permutation(count)[:24])
    for seed in (7, 8):
        check_rows(choose(anchors, seed=seed), index, anchors, size, "pools")
    check_independence(choose, anchors, "pools")
    check_rows(choose(make_anchors(index, [])), index, make_anchors(index, []), size, "pools")
    _check_exhaustion(choose, index, anchors)


def _check_exhaustion(choose: Callable[..., IntArray], index: IndexSet, anchors: QuerySet) -> None:
    """A pool may contain every row that is left, but not one more."""
    one = make_anchors(index, [int(np.flatnonzero(index.ids == anchors.ids[0])[0])])
    leaking = index.leaking_rows(one, 0)
    left = len(index) - len(leaking)
    try:
        whole = choose(one, left)
    except DataError as problem:
        raise AssertionError(f"a pool of all {left} rows that do not leak must be possible: {problem}") from problem
    check_rows(whole, index, one, left, "pools that take every row that is left")
    error = expect_error(
        DataError,
        lambda: choose(one, left + 1),
        f"an anchor with {left} rows left and a pool of {left + 1} is a DataError",
    )
    named, numbers = str(one.ids[0]) in error.message, any(str(n) in error.message for n in (left, left + 1))
    expect(named and numbers, f"the DataError must name the anchor ({one.ids[0]}) and the number: {error.message!r}")
