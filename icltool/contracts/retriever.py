"""Retrieval methods choose the demonstrations of a query at evaluation."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import IndexSet, IntArray, QuerySet


@runtime_checkable
class Retriever(Protocol):
    """Chooses demonstrations for queries.

    `needs` is a subset of {"image", "text", "texts", "images"}. `ranked` is true when the answer is ordered from the
    most to the least similar (the caller may then reverse it, so that the most similar stands next to the query);
    otherwise it is in prompt order. `nested` is true when the answer for k shots is the first k columns of the answer
    for more.
    An attribute `query` of "text" says that the method reads the query's text: for captions, whose text is their own
    reference, its results are then marked as an upper bound.
    """

    needs: frozenset[str]
    ranked: bool
    nested: bool

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots], distinct per query, never one of `index.leaking_rows(queries, q)`.

        A query's answer does not depend on the other queries of the call.
        """
        ...
