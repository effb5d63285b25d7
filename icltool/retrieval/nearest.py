"""Exact nearest neighbours by cosine: faiss finds candidates, double precision decides their order.

A faiss search computes in float32, and its rounding depends on how many queries are searched at once. Its scores
therefore only select candidates; the final order comes from double-precision products that depend on the two vectors
alone, so that a query's neighbours never depend on the other queries, on threads, or on the machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from icltool.contracts import Float64Array, FloatArray, IntArray
from icltool.errors import DataError

#: Neighbours fetched beyond the ones that are needed, so that few searches must be repeated.
MARGIN = 32
#: Bytes that one search's answer (float32 score and int64 label per neighbour) and one batch of candidates may take.
BATCH_BYTES = 256 * 2**20
#: Queries searched at once, at most.
BATCH_QUERIES = 1024
#: Rows normalised at once.
_NORMALISE_ROWS = 16384


def normalised(vectors: FloatArray, name: str = "embeddings") -> FloatArray:
    """L2-normalised copy, float32 [n, D]; rows of zeros stay zero. DataError when a value is not finite."""
    result = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), _NORMALISE_ROWS):
        part = vectors[start : start + _NORMALISE_ROWS].astype(np.float64)
        norms = np.sqrt((part * part).sum(axis=1, keepdims=True))
        if not np.isfinite(norms).all():
            row = start + int(np.flatnonzero(~np.isfinite(norms[:, 0]))[0])
            raise DataError(f"{name}: row {row} holds a value that is not finite", "run `icltool embed` again")
        result[start : start + len(part)] = part / np.where(norms > 0, norms, 1.0)
    return result


class NearestRows:
    """Searches one set of vectors, float32 [N, D], exactly.

    Equal vectors (an image that belongs to several questions, a question asked of several images) are searched once.
    Beyond the vectors it holds one normalised copy of the distinct ones, and less than a gigabyte while searching.
    """

    def __init__(self, vectors: FloatArray) -> None:
        self.total, self.dim = vectors.shape
        unit = normalised(vectors, "the index set's embeddings")
        # first[u]: the first row of distinct vector u; all its rows, ascending: _order[_starts[u] : _starts[u + 1]]
        first, codes = _distinct(unit)
        self._order = np.argsort(codes, kind="stable")
        self._starts = np.searchsorted(codes[self._order], np.arange(len(first) + 1))
        self._unit = unit if len(first) == len(unit) else unit[first]
        # Twice the bound of a float32 inner product's rounding error: D half-units in the last place of |x| |y| = 1.
        self._error = self.dim * 2.0**-23

    def search(self, queries: FloatArray, count: int, excluded: Callable[[int], IntArray]) -> IntArray:
        """The `count` nearest rows of each query, int64 [Q, count], most similar first, equal ones by row.

        `queries` float32 [Q, D] need no normalisation. `excluded(q)` are the rows (ascending) that query q must not
        get; as many more neighbours are fetched. Raises DataError when D differs, a value is not finite, or fewer than
        `count` rows are left.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise DataError(
                f"query embeddings of shape {queries.shape} do not fit index embeddings of {self.dim} dimensions",
                "embed both with one encoder (`icltool embed`)",
            )
        result = np.empty((len(queries), count), dtype=np.int64)
        if count == 0:
            return result
        size = self._batch_size(count)
        for start in range(0, len(queries), size):
            unit = normalised(queries[start : start + size], "the queries' embeddings")
            left_out = [excluded(start + q) for q in range(len(unit))]
            self._search_batch(unit, left_out, count, result[start : start + len(unit)])
        return result

    def _search_batch(self, unit: FloatArray, left_out: list[IntArray], count: int, result: IntArray) -> None:
        """Fills `result` [q, count]. Queries whose candidates leave a doubt are searched again, more widely."""
        wanted = np.array([count + len(rows) for rows in left_out]) + MARGIN
        if any(count + len(rows) > self.total for rows in left_out):
            raise DataError(f"the index set has fewer than {count} rows left for a query", "use a larger index set")
        pending = np.arange(len(unit))
        while len(pending):
            fetch = int(min(wanted[pending].max(), len(self._unit)))
            doubtful: list[int] = []
            size = self._batch_size(fetch)
            for start in range(0, len(pending), size):
                part = pending[start : start + size]
                scores, labels = self._faiss(unit[part], fetch)
                for i, q in enumerate(part):
                    floor = -np.inf if fetch == len(self._unit) else float(scores[i, -1]) + self._error
                    rows = self._decide(unit[q], labels[i], left_out[q], count, floor)
                    if rows is None:
                        doubtful.append(int(q))
                    else:
                        result[q] = rows
            pending = np.array(doubtful, dtype=np.int64)
            wanted[pending] = 4 * fetch

    def _batch_size(self, fetch: int) -> int:
        return int(max(1, min(BATCH_QUERIES, BATCH_BYTES // (12 * max(fetch, 1)))))

    def _faiss(self, unit: FloatArray, fetch: int) -> tuple[FloatArray, IntArray]:
        """What faiss' IndexFlatIP finds, without the copy of the vectors that an index object would hold."""
        import faiss

        scores, labels = faiss.knn(np.ascontiguousarray(unit), self._unit, fetch, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, labels

    def _decide(
        self, query: FloatArray, labels: IntArray, left_out: IntArray, count: int, floor: float
    ) -> IntArray | None:
        """The `count` best allowed rows among the fetched vectors; None when one that was not fetched might be better.

        `floor` is the score that no vector outside `labels` exceeds.
        """
        exact = self._exact(query, labels)
        lengths = self._starts[labels + 1] - self._starts[labels]
        # Positions in _order: the start of each vector's rows, then the ones that follow it.
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        rows = self._order[np.repeat(self._starts[labels], lengths) + within]
        scores = np.repeat(exact, lengths)
        if len(left_out):
            allowed = ~np.isin(rows, left_out)
            rows, scores = rows[allowed], scores[allowed]
        best = np.lexsort((rows, -scores))[:count]
        if len(best) < count or scores[best[-1]] <= floor:
            return None
        return np.asarray(rows[best], dtype=np.int64)

    def _exact(self, query: FloatArray, labels: IntArray) -> Float64Array:
        """Products in double precision, float64 [n]; each depends on the two vectors only (numpy adds a row's values in
        an order that its length decides)."""
        product: Float64Array = (self._unit[labels].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        return product


def nearest_rows(base: FloatArray, queries: FloatArray, count: int, excluded: Callable[[int], IntArray]) -> IntArray:
    """`NearestRows(base).search(...)`, for a set that is searched once."""
    return NearestRows(base).search(queries, count, excluded)


def _distinct(vectors: FloatArray) -> tuple[IntArray, IntArray]:
    """(first row of each distinct vector int64 [U], which of them each row is int64 [N]). -0.0 counts as 0.0."""
    codes = np.empty(len(vectors), dtype=np.int64)
    first: list[int] = []
    known: dict[bytes, int] = {}
    for start in range(0, len(vectors), _NORMALISE_ROWS):
        block = vectors[start : start + _NORMALISE_ROWS] + np.float32(0.0)
        for row, vector in enumerate(block, start):
            key = hashlib.blake2b(vector.data, digest_size=16).digest()
            code = known.setdefault(key, len(first))
            if code == len(first):
                first.append(row)
            codes[row] = code
    return np.array(first, dtype=np.int64), codes
