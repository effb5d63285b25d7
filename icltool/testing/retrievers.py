"""The conformance suite of retrieval methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet, Retriever
from icltool.errors import IclError
from icltool.testing.abilities import expect_choosing_abilities
from icltool.testing.arrays import ALL_ARRAYS, make_anchors, make_index, make_queries
from icltool.testing.expectations import built, expect, expect_equal, expect_error, expect_needs
from icltool.testing.selection import check_independence, check_rows


def check_retriever(
    retriever: Retriever | Callable[[], Retriever], *, shots: Sequence[int] = (1, 2, 5), index: IndexSet | None = None
) -> None:
    """Checks a retrieval method, or a class or factory that makes one, against `icltool.Retriever`.

    `shots` are the numbers of demonstrations that it serves ((0,) for one that gives none). `index` is the index set to
    use where the method is tied to one (a trained selector); its arrays must hold what the method needs. Checked are:
    `needs`, `ranked` and `nested`; shape, dtype, distinct rows, no leaks, for queries of another split and of the
    same one; the same rows whatever the other queries and their order; `nested` where it is claimed; an IclError for
    more shots than there are rows. Raises AssertionError that says what is wrong.
    """

    def choose(queries: QuerySet, number: int) -> IntArray:
        chosen: IntArray = built(retriever, "retrieve").retrieve(rows, queries, number, 11)
        return chosen

    first = built(retriever, "retrieve")
    needs = expect_needs(first, ALL_ARRAYS)
    for name in ("ranked", "nested"):
        value = getattr(first, name, None)
        expect(isinstance(value, bool), f"`{name}` must be True or False, not {value!r}")
    expect_choosing_abilities(first)
    rows = make_index(needs=needs) if index is None else index
    picked = np.random.default_rng(3).permutation(len(rows))[:20]
    for queries in (make_queries(rows, picked), make_anchors(rows, picked)):
        for number in shots:
            check_rows(choose(queries, number), rows, queries, number, "demonstrations")
        check_independence(lambda q: choose(q, max(shots)), queries, "demonstrations")
        if first.nested:
            longest = choose(queries, max(shots))
            for number in shots:
                sentence = f"`nested` is claimed, but {number} shots are not the first columns of {max(shots)}"
                expect_equal(choose(queries, number), longest[:, :number], sentence)
    empty = make_queries(rows, [])
    check_rows(choose(empty, max(shots)), rows, empty, max(shots), "demonstrations")
    one = make_queries(rows, picked[:1])
    expect_error(IclError, lambda: choose(one, len(rows) + 1), "more shots than the index set has rows is an IclError")
