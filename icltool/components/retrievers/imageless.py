"""Examples without an image, whose image embedding is a row of zeros, in methods that compare images.

They are no demonstrations; a query without an image gets the demonstrations that `random` gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from icltool.components.retrievers.nearest import empty_rows
from icltool.components.retrievers.options import EmbeddingOptions
from icltool.components.retrievers.random import RandomOptions, RandomRetriever
from icltool.components.retrievers.rows import embeddings
from icltool.contracts import IndexSet, IntArray, QuerySet

_NONE = np.empty(0, dtype=np.int64)


class Choose(Protocol):
    """Chooses the rows int64 [Q, shots] of queries with an image; `without` int64 are the rows that have none."""

    def __call__(self, queries: QuerySet, among: IntArray | None, without: IntArray) -> IntArray: ...


def compared_images(options: EmbeddingOptions) -> frozenset[str]:
    """See ComparesImages."""
    sides = {"queries": options.query, "demonstrations": options.demonstration}
    return frozenset(side for side, embedding in sides.items() if embedding == "image")


def choose_by_image(
    choose: Choose,
    sides: frozenset[str],
    index: IndexSet,
    queries: QuerySet,
    shots: int,
    seed: int,
    among: IntArray | None = None,
) -> IntArray:
    """`choose` for the queries with an image, `random` for the others; rows int64 [Q, shots]. `sides` are those on which images
    are compared."""
    without = empty_rows(embeddings(index, "image")) if "demonstrations" in sides else _NONE
    if "queries" not in sides or (present := embeddings(queries, "image").any(axis=1)).all():
        return choose(queries, among, without)
    chosen = np.empty((len(queries), shots), dtype=np.int64)
    pick: Callable[[IntArray], IntArray | None] = lambda positions: None if among is None else among[positions]  # noqa: E731
    seeing, blind = np.flatnonzero(present), np.flatnonzero(~present)
    if len(seeing):
        chosen[seeing] = choose(queries.take(seeing), pick(seeing), without)
    drawn = RandomRetriever(RandomOptions())
    chosen[blind] = drawn.retrieve(index, queries.take(blind), shots, seed, among=pick(blind))
    return chosen
