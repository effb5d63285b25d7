"""Retrieval methods choose the demonstrations of a query at evaluation."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import IndexSet, IntArray, QuerySet


@runtime_checkable
class Retriever(Protocol):
    """Chooses demonstrations for queries.

    `needs` is a subset of {"image", "text", "texts", "images"}. `ranked` is true when the answer is ordered from the
    most to the least similar (the caller may then reverse it, so that the most similar stands next to the query);
    otherwise it is in prompt order. `nested` is true when the answer for k shots is the first k columns of the answer
    for more.
    See HasRemarks, HasIdentity, OfDataset, ReadsTheQuery, ReadsSequences, HasLengths and EmbeddedBy for what it may have
    besides.
    """

    needs: frozenset[str]
    ranked: bool
    nested: bool

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots], distinct per query, never one of `index.leaking_rows(queries, q)`.

        A query's answer does not depend on the other queries of the call.
        """
        ...


@runtime_checkable
class ReadsTheQuery(Protocol):
    """A method that compares by one side of the query."""

    @property
    def query(self) -> str:
        """ "image" or "text". By the text of a caption query, which is its own reference, results are an upper bound."""
        ...


@runtime_checkable
class ReadsSequences(Protocol):
    """A method that shows sequences which were searched with the queries' labels: an upper bound."""

    @property
    def sequences(self) -> str:
        """The split whose queries they were searched for; its option `file` names them, or the newest are taken."""
        ...


@runtime_checkable
class HasLengths(Protocol):
    """A method that has demonstrations of some numbers only."""

    @property
    def lengths(self) -> Collection[int]:
        """Those numbers; it is asked for no others."""
        ...


@runtime_checkable
class EmbeddedBy(Protocol):
    """A trained method that reads the embeddings it was trained on."""

    @property
    def encoder(self) -> str | None:
        """The encoder's name; None where that is not known."""
        ...
