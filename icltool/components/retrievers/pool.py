"""The neighbourhood of a query, for methods that weigh relevance against diversity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from icltool.components.retrievers.imageless import choose_by_image, compared_images
from icltool.components.retrievers.nearest import NearestRows, normalised
from icltool.components.retrievers.options import EmbeddingOptions, PoolOptions
from icltool.components.retrievers.rows import embeddings, excluded_rows, given_rows
from icltool.contracts import Float64Array, FloatArray, IndexSet, IntArray, QuerySet
from icltool.errors import ConfigError

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Pool:
    """The P rows nearest to a query that do not leak, most similar first, equal ones by row.

    `rows` int64 [P], `units` float64 [P, D] their normalised vectors, `relevance` float64 [P] their cosines with the query.
    No product uses a matrix library, whose rounding may depend on the number of threads.
    """

    rows: IntArray
    units: Float64Array
    relevance: Float64Array

    def __len__(self) -> int:
        return len(self.rows)

    def similarities(self, position: int) -> Float64Array:
        """Cosines of all rows with the one at `position`, float64 [P]."""
        cosines: Float64Array = (self.units * self.units[position]).sum(axis=1)
        return cosines

    def best(self, scores: Float64Array) -> int:
        """The position of the highest score, ties to the lowest row."""
        highest = np.flatnonzero(scores == scores.max())
        return int(highest[np.argmin(self.rows[highest])])


class PoolRetriever(ABC):
    """A method that chooses among the pool of each query, or among the rows of another method. Rows count as ranked."""

    name: ClassVar[str]
    ranked = True
    nested: ClassVar[bool]
    options: PoolOptions

    def __init__(self, options: PoolOptions) -> None:
        self.options = options
        self.needs = options.needs | {"among"}
        self.compared_images = compared_images(options)

    def pool_size(self, shots: int) -> int:
        """See HasPoolSize."""
        return self.options.pool_size(shots)

    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, among: IntArray | None = None
    ) -> IntArray:
        """Rows of `index` int64 [Q, shots]; see `icltool.contracts.Retriever`. DataError when too few rows are left."""

        def choose(queries: QuerySet, among: IntArray | None, without: IntArray) -> IntArray:
            chosen = np.empty((len(queries), shots), dtype=np.int64)
            candidates = pools(self.name, self.options, index, queries, shots, among, without)
            for answer, pool, query_id in zip(chosen, candidates, queries.ids.tolist(), strict=True):
                if shots:
                    answer[:] = pool.rows[self.choose(pool, shots, query_id, seed)]
            return chosen

        return choose_by_image(choose, self.compared_images, index, queries, shots, seed, among)

    @abstractmethod
    def choose(self, pool: Pool, shots: int, query_id: int, seed: int) -> Sequence[int] | IntArray:
        """Positions of `shots` rows in the pool, in the order of the answer."""


def pools(
    method: str,
    options: PoolOptions,
    index: IndexSet,
    queries: QuerySet,
    shots: int,
    among: IntArray | None = None,
    without: IntArray = _NONE,
) -> Iterator[Pool]:
    """Each query's pool of `options.pool` rows, or of all that do not leak if these are fewer; from its rows of `among`, if
    given. The rows `without` an image are in no pool.

    Similarity is the cosine between the query's `options.query` and the rows' `options.demonstration` embedding. Raises
    ConfigError if the pool is smaller than `shots`, DataError if fewer than `shots` rows are left for a query.
    """
    if options.pool < shots:
        raise ConfigError(
            f"{method}: a pool of {options.pool} rows has no {shots} demonstrations",
            f"--method-option {method}.pool={4 * shots}",
        )
    if among is not None:
        yield from given_pools(options, index, queries, shots, among, without)
        return
    leaking = [excluded_rows(index, queries, position, shots, "query", without) for position in range(len(queries))]
    if shots == 0 or not len(queries):
        for _ in range(len(queries)):
            yield Pool(np.empty(0, np.int64), np.empty((0, 0)), np.empty(0))
        return
    search = NearestRows(embeddings(index, options.demonstration), options)
    vectors = embeddings(queries, options.query)
    counts = np.array([min(options.pool, len(index) - len(rows)) for rows in leaking])
    candidates: dict[int, IntArray] = {}
    for count in np.unique(counts).tolist():
        group = np.flatnonzero(counts == count)
        rows = search.search(vectors[group], count, lambda i, group=group: leaking[group[i]])  # type: ignore[misc]
        candidates.update(zip(group.tolist(), rows, strict=True))
    for position in range(len(queries)):
        yield _pool(search, vectors, position, candidates[position])


def given_pools(
    options: EmbeddingOptions,
    index: IndexSet,
    queries: QuerySet,
    least: int,
    among: IntArray,
    without: IntArray = _NONE,
) -> Iterator[Pool]:
    """Each query's rows of `among` int64 [Q, P] as a pool, without those `without` an image if `least` others are left.

    DataError if `among` has fewer than `least`.
    """
    search = NearestRows(embeddings(index, options.demonstration))
    vectors = embeddings(queries, options.query)
    for position in range(len(queries)):
        rows = given_rows(among, queries, position, least)
        if len(without):
            rows = _with_image(rows, without, least)
        pool = _pool(search, vectors, position, rows)
        order = np.lexsort((pool.rows, -pool.relevance))
        yield Pool(pool.rows[order], pool.units[order], pool.relevance[order])


def _with_image(rows: IntArray, without: IntArray, least: int) -> IntArray:
    """The rows that have an image, and as many others behind them as `least` needs."""
    imageless = np.isin(rows, without)
    count = max(least, int((~imageless).sum()))
    return rows[np.argsort(imageless, kind="stable")[:count]]


def _pool(search: NearestRows, vectors: FloatArray, position: int, rows: IntArray) -> Pool:
    units = search.units(rows)
    query = normalised(vectors[position : position + 1], "the queries' embeddings")[0].astype(np.float64)
    return Pool(rows, units, (units * query).sum(axis=1))
