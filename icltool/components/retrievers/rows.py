"""Functions that samplers and retrievers share: excluding rows that leak, drawing rows, accessing the embeddings."""

from __future__ import annotations

import numpy as np

from icltool.contracts import FloatArray, IndexSet, IntArray, QuerySet
from icltool.errors import DataError

_NONE = np.empty(0, dtype=np.int64)


def excluded_rows(
    index: IndexSet, queries: QuerySet, position: int, count: int, noun: str, without: IntArray = _NONE
) -> IntArray:
    """`index.leaking_rows(queries, position)` and the rows `without` an image, ascending, after checking that `count` other
    rows are left. Raises DataError with the query (called `noun`: "anchor" or "query") and both numbers.
    """
    leaking = index.leaking_rows(queries, position)
    if len(without):
        leaking = np.union1d(leaking, without)
    left = len(index) - len(leaking)
    if left < count:
        support = queries.support_of(position)
        whole = f"the {len(support)} in its support set" if len(support) else f"the index set's {len(index)}"
        raise DataError(
            f"{noun} {int(queries.ids[position])}: {count} rows are needed, but only {left} of {whole} "
            f"{'have an image and ' if len(without) else ''}do not leak its answer",
            "ask for fewer" if len(support) else "ask for fewer, or use a larger index set",
        )
    return leaking


def given_rows(among: IntArray, queries: QuerySet, position: int, count: int) -> IntArray:
    """The rows that another method chose for the query at `position`, int64 [n], without the padding. DataError if these
    are fewer than `count`."""
    rows: IntArray = among[position][among[position] >= 0]
    if len(rows) < count:
        raise DataError(
            f"query {int(queries.ids[position])}: {count} rows are needed, but the first method chose {len(rows)}",
            "ask for fewer, or use a larger index set",
        )
    return rows


def draw_rows(generator: np.random.Generator, total: int, excluded: IntArray, count: int) -> IntArray:
    """`count` of the rows 0 … total - 1 without `excluded` (ascending, distinct), uniform without replacement.

    int64 [count] in the order of the draws. The first k of `count` rows are what a call for k rows gives, and neither
    time nor memory grows with `total`: it is a shuffle that stops after `count` swaps and remembers only those.
    Raises ValueError when fewer than `count` rows are left.
    """
    left = total - len(excluded)
    if not 0 <= count <= left:
        raise ValueError(f"cannot draw {count} of {left} rows")
    fractions = generator.random(count)
    moved: dict[int, int] = {}
    ranks = np.empty(count, dtype=np.int64)
    for i, fraction in enumerate(fractions):
        j = i + int(fraction * (left - i))
        ranks[i] = moved.get(j, j)
        moved[j] = moved.get(i, i)
    # The r-th remaining row: r, plus the number of excluded rows before it.
    before = np.searchsorted(excluded - np.arange(len(excluded)), ranks, side="right")
    rows: IntArray = ranks + before
    return rows


def embeddings(arrays: IndexSet | QuerySet, kind: str) -> FloatArray:
    """The embeddings of `kind` ("image" or "text"), float32 [n, D]. ValueError if the caller left them out."""
    vectors: FloatArray | None = getattr(arrays, kind)
    if vectors is None:
        raise ValueError(f"{type(arrays).__name__}.{kind} is not filled, though the component needs it")
    return vectors
