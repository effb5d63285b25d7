"""Nearest neighbours by cosine: faiss finds candidates, double precision decides their order.

A faiss search computes in float32, and its rounding depends on how many queries are searched at once. Its scores therefore
only select candidates; the final order comes from double-precision products that depend on the two vectors alone, so that a
query's neighbours never depend on the other queries, on threads, or on the machine. The search is exact unless an index
that proposes candidates without comparing all vectors is requested (`retrievers.approximate`). If faiss finds a GPU, an
exact search compares many queries with all vectors there.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from icltool.components.retrievers import approximate, gpu
from icltool.components.retrievers.approximate import EXACT, CandidateIndex, IndexOptions
from icltool.components.retrievers.distinct import distinct_rows
from icltool.components.retrievers.lists import rounding_error
from icltool.contracts import Float64Array, FloatArray, IntArray
from icltool.errors import DataError

Result = TypeVar("Result")

#: Extra neighbours per search, so that few searches must be repeated.
MARGIN = 16
#: Bytes that the answers of one search (float32 score and int64 label per neighbour) may take.
BATCH_BYTES = 64 * 2**20
#: Queries searched at once, at most.
BATCH_QUERIES = 4096
#: Bytes of index vectors that each thread normalises and searches at once.
BLOCK_BYTES = 96 * 2**20
#: Rows normalised at once.
_NORMALISE_ROWS = 4096


def normalised(vectors: FloatArray, name: str = "embeddings") -> FloatArray:
    """L2-normalised copy, float32 [n, D]; rows of zeros stay zero. DataError if a value is not finite."""
    norms = _norms(vectors, name)
    result = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), _NORMALISE_ROWS):
        part = slice(start, start + _NORMALISE_ROWS)
        result[part] = vectors[part].astype(np.float64) / norms[part, None]
    return result


def _norms(vectors: FloatArray, name: str) -> Float64Array:
    """L2 norms float64 [n], 1 for rows of zeros; each depends on its row alone. DataError if a value is not finite."""
    norms = np.empty(len(vectors))
    for start in range(0, len(vectors), _NORMALISE_ROWS):
        part = vectors[start : start + _NORMALISE_ROWS].astype(np.float64)
        norms[start : start + len(part)] = np.sqrt((part * part).sum(axis=1))
    if not np.isfinite(norms).all():
        row = int(np.flatnonzero(~np.isfinite(norms))[0])
        raise DataError(f"{name}: row {row} holds a value that is not finite", "run `icltool embed` again")
    norms[norms == 0] = 1.0
    return norms


@dataclass(frozen=True)
class _Prepared:
    """Data computed once for the vectors of a search: `norms` float64 [N]; `first` int64 [U], the first row of each
    distinct vector; the rows of distinct vector u, ascending, are `order[starts[u] : starts[u + 1]]`; `sample` holds some
    of the values; `empty` int64 the rows of zeros, ascending; `indexes` the indexes built so far, by kind."""

    norms: Float64Array
    first: IntArray
    order: IntArray
    starts: IntArray
    sample: bytes
    empty: IntArray
    indexes: dict[str, CandidateIndex] = field(default_factory=dict)
    building: threading.Lock = field(default_factory=threading.Lock)


#: By the address of an array that is still in use.
_prepared: dict[int, tuple[weakref.ref[FloatArray], _Prepared]] = {}


def _prepare(vectors: FloatArray) -> _Prepared:
    """Cached for the lifetime of the array, since stages search for a few hundred queries at a time. An array that was
    refilled is prepared again; single changed values are not noticed.
    """
    sample = vectors[:: max(1, len(vectors) // 64)].tobytes()
    key = id(vectors)
    cached = _prepared.get(key)
    if cached is not None and cached[0]() is vectors and cached[1].sample == sample:
        return cached[1]
    norms = _norms(vectors, "the index set's embeddings")
    first, codes = distinct_rows(vectors)
    order = np.argsort(codes, kind="stable").astype(np.int64)
    starts = np.searchsorted(codes[order], np.arange(len(first) + 1)).astype(np.int64)
    empty = np.flatnonzero(norms == 1)
    empty = empty[~vectors[empty].any(axis=1)].astype(np.int64)
    prepared = _Prepared(norms, first, order, starts, sample, empty)
    _prepared[key] = (weakref.ref(vectors, lambda _: _prepared.pop(key, None)), prepared)
    return prepared


def empty_rows(vectors: FloatArray) -> IntArray:
    """The rows of zeros, int64, ascending: those of examples without an image."""
    return _prepare(vectors).empty


class NearestRows:
    """Searches one set of vectors, float32 [N, D]: exactly, or through an index (`options`).

    An index is built at the first search and kept for the lifetime of the array. It proposes candidates, which are then
    ordered by exact products; a query with too few candidates is searched again with more effort, and finally exactly. So
    an answer is always complete, but may miss a nearer row; and k rows need not be the first k of a longer list.

    Equal vectors (an image that belongs to several questions, a question asked of several images) are searched once. An
    exact search does not copy the vectors: beyond them it holds a few numbers per row, and less than a gigabyte while
    searching. For the memory of an index see `retrievers.approximate`. The vectors must not change while this object is in
    use.
    """

    def __init__(self, vectors: FloatArray, options: IndexOptions = EXACT) -> None:
        self.vectors, self.options = vectors, options
        self.total, self.dim = vectors.shape
        self._known = known = _prepare(vectors)
        self._norms, self._first, self._order, self._starts = known.norms, known.first, known.order, known.starts
        self._error = rounding_error(self.dim)

    def search(self, queries: FloatArray, count: int, excluded: Callable[[int], IntArray]) -> IntArray:
        """The `count` nearest rows of each query, int64 [Q, count], most similar first, equal ones by row.

        `queries` float32 [Q, D] need no normalisation. `excluded(q)` are the rows (ascending) that query q must not get;
        that many more neighbours are fetched. Raises DataError if D differs, a value is not finite, or fewer than `count`
        rows are left.
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
            scaled = normalised(queries[start : start + size], "the queries' embeddings")
            left_out = [excluded(start + q) for q in range(len(scaled))]
            self._search_batch(scaled, left_out, count, result[start : start + len(scaled)])
        return result

    def units(self, rows: IntArray) -> Float64Array:
        """The normalised vectors of some rows, float64 [n, D] (rounded to float32, as by `normalised`)."""
        scaled = (self.vectors[rows].astype(np.float64) / self._norms[rows, None]).astype(np.float32)
        normal: Float64Array = scaled.astype(np.float64)
        return normal

    def _index(self) -> CandidateIndex | None:
        """The index that the options request, built on first use; None if the search is exact."""
        kind = self.options.index
        if kind == EXACT.index or len(self._first) < approximate.LEAST_VECTORS:
            return None
        with self._known.building:
            if kind not in self._known.indexes:
                self._known.indexes[kind] = approximate.build_index(kind, self._units32, len(self._first), self.dim)
            return self._known.indexes[kind]

    def _units32(self, positions: IntArray) -> FloatArray:
        """The normalised distinct vectors at `positions`, float32 [n, D]."""
        return np.ascontiguousarray(normalised(self.vectors[self._first[positions]]))

    def _search_batch(self, queries: FloatArray, left_out: list[IntArray], count: int, result: IntArray) -> None:
        """Fills `result` [q, count]."""
        if any(count + len(rows) > self.total for rows in left_out):
            raise DataError(f"the index set has fewer than {count} rows left for a query", "use a larger index set")
        index = self._index()
        pending = np.arange(len(queries))
        if index is not None:
            pending = self._search_index(index, queries, left_out, count, result)
        self._search_all(pending, queries, left_out, count, result)

    def _search_index(
        self, index: CandidateIndex, queries: FloatArray, left_out: list[IntArray], count: int, result: IntArray
    ) -> IntArray:
        """Fills `result` [q, count] for the queries with enough candidates; returns the positions of the others. The search
        for a query depends on it alone.
        """
        needed = count * approximate.SPARE if index.estimates else count
        widths = np.array([_rounded_up(needed + len(rows) + MARGIN) for rows in left_out])
        efforts = np.array([index.effort(self.options, int(width)) for width in widths])
        pending = np.flatnonzero(efforts < index.most)
        while len(pending):
            for effort, width in sorted({(int(efforts[q]), int(widths[q])) for q in pending}):
                group = pending[(efforts[pending] == effort) & (widths[pending] == width)]
                size = self._batch_size(width)
                for start in range(0, len(group), size):
                    part = group[start : start + size]
                    scores, labels = index.candidates(queries[part], effort, width)
                    for i, q in enumerate(part):
                        near_rows = labels[i][labels[i] >= 0]
                        near = scores[i][: len(near_rows)]
                        if index.estimates:
                            near, near_rows = self._compared(queries[q], near_rows)
                        rows = self._decide(queries[q], near, near_rows, left_out[q], count, -np.inf, self._error)
                        if rows is None:
                            efforts[q] *= 4
                        else:
                            result[q], efforts[q] = rows, 0
            pending = pending[(efforts[pending] > 0) & (efforts[pending] < index.most)]
        return np.flatnonzero(efforts)

    def _compared(self, query: FloatArray, labels: IntArray) -> tuple[FloatArray, IntArray]:
        """Candidates in the order of their float32 products with the query; these products, and the candidates."""
        rows = self._first[labels]
        norms = self._norms[rows]
        if len(rows) and (norms.min() < 1e-30 or norms.max() > 1e30):  # float32 cannot hold the inverse
            near = normalised(self.vectors[rows]) @ query
        else:
            near = (self.vectors[rows] @ query) * (1.0 / norms).astype(np.float32)
        order = np.argsort(-near, kind="stable")
        return near[order], labels[order]

    def _search_all(
        self, pending: IntArray, queries: FloatArray, left_out: list[IntArray], count: int, result: IntArray
    ) -> None:
        """Fills `result` for the queries at `pending` by comparing all vectors. Queries whose candidates leave doubt are
        searched again with more of them."""
        needed = np.array([count + len(rows) for rows in left_out]) + MARGIN
        while len(pending):
            fetch = int(min(needed[pending].max(), len(self._first)))
            doubtful: list[int] = []
            size = self._batch_size(fetch)
            for start in range(0, len(pending), size):
                part = pending[start : start + size]
                scores, labels, error = self._fetch(queries[part], fetch)
                for i, q in enumerate(part):
                    floor = -np.inf if fetch == len(self._first) else float(scores[i, -1]) + error
                    rows = self._decide(queries[q], scores[i], labels[i], left_out[q], count, floor, error)
                    if rows is None:
                        doubtful.append(int(q))
                    else:
                        result[q] = rows
            pending = np.array(doubtful, dtype=np.int64)
            needed[pending] = 4 * fetch

    def _batch_size(self, fetch: int) -> int:
        return int(max(1, min(BATCH_QUERIES, BATCH_BYTES // (36 * max(fetch, 1)))))

    def _fetch(self, unit: FloatArray, fetch: int) -> tuple[FloatArray, IntArray, float]:
        """The best distinct vectors by float32 products, best first: scores float32 and labels int64 [q, fetch], and a
        bound on the error of a score."""
        import faiss

        def on_cpu(queries: FloatArray, vectors: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
            scores, labels = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
            return scores, labels

        if (on_gpu := gpu.gpu_search(len(unit), fetch)) is not None:
            try:
                return *self._fetch_by(on_gpu, 1, unit, fetch), gpu.ERROR
            except RuntimeError as error:
                gpu.give_up(error)
        return *self._fetch_by(on_cpu, faiss.omp_get_max_threads(), unit, fetch), self._error

    def _fetch_by(
        self, search: gpu.Search, threads: int, queries: FloatArray, fetch: int
    ) -> tuple[FloatArray, IntArray]:
        """The best distinct vectors by `search` on this many threads. The index vectors are normalised a block at a time,
        so that no normalised copy of all is needed."""
        step = max(1024, BLOCK_BYTES // (4 * self.dim))
        own = threading.local()

        def search_block(start: int) -> tuple[FloatArray, IntArray]:
            rows = self._first[start : start + step]
            if not hasattr(own, "space"):
                own.space = np.empty((min(step, len(self._first)), self.dim), dtype=np.float32)
            block = self._block(rows, own.space[: len(rows)])
            near, near_labels = search(queries, block, min(fetch, len(rows)))
            return near, near_labels + start

        scores = np.empty((len(queries), 0), dtype=np.float32)
        labels = np.empty((len(queries), 0), dtype=np.int64)
        for near, near_labels in _in_threads(search_block, range(0, len(self._first), step), threads):
            scores, labels = np.hstack([scores, near]), np.hstack([labels, near_labels])
            if scores.shape[1] > fetch:
                best = np.argpartition(-scores, fetch - 1, axis=1)[:, :fetch]
                scores, labels = np.take_along_axis(scores, best, 1), np.take_along_axis(labels, best, 1)
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(scores, order, 1), np.take_along_axis(labels, order, 1)

    def _block(self, rows: IntArray, space: FloatArray) -> FloatArray:
        """Normalised vectors float32 [n, D] for the search, accurate to a few units in the last place; written to
        `space`."""
        # Consecutive rows are a view; repeated vectors leave gaps, and what is between them must be gathered.
        together = rows[-1] - rows[0] + 1 == len(rows)
        vectors = self.vectors[rows[0] : rows[-1] + 1] if together else np.take(self.vectors, rows, 0, space, "clip")
        norms = self._norms[rows]
        if norms.min() < 1e-30 or norms.max() > 1e30:  # float32 cannot hold the inverse
            return normalised(vectors)
        return np.multiply(vectors, (1.0 / norms).astype(np.float32)[:, None], out=space)

    def _decide(
        self,
        query: FloatArray,
        near: FloatArray,
        labels: IntArray,
        left_out: IntArray,
        count: int,
        floor: float,
        error: float,
    ) -> IntArray | None:
        """The `count` best allowed rows among the fetched vectors; None if one that was not fetched might be better. `near`
        float32 are the vectors' scores, descending, each accurate to `error`; no vector outside `labels` exceeds `floor`.
        """
        if not len(labels):
            return None
        lengths = self._starts[labels + 1] - self._starts[labels]
        # Positions in _order: the start of each vector's rows, then the ones that follow it.
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        rows = self._order[np.repeat(self._starts[labels], lengths) + within]
        owner = np.repeat(np.arange(len(labels)), lengths)
        if len(left_out):
            allowed = ~_among(rows, left_out)
            rows, owner = rows[allowed], owner[allowed]
        if len(rows) < count:
            return None
        # Only vectors that may still be among the best need the exact product.
        last = int(np.searchsorted(-near, 2 * error - float(near[owner[count - 1]]), side="right"))
        exact = (self.units(self._first[labels[:last]]) * query.astype(np.float64)).sum(axis=1)
        exact_rows = int(np.searchsorted(owner, last))
        rows, scores = rows[:exact_rows], exact[owner[:exact_rows]]
        best = np.lexsort((rows, -scores))[:count]
        if scores[best[-1]] <= floor:
            return None
        return np.asarray(rows[best], dtype=np.int64)


def nearest_rows(
    base: FloatArray,
    queries: FloatArray,
    count: int,
    excluded: Callable[[int], IntArray],
    options: IndexOptions = EXACT,
) -> IntArray:
    """`NearestRows(base, options).search(...)`."""
    return NearestRows(base, options).search(queries, count, excluded)


def _rounded_up(number: int) -> int:
    """Rounded up to two leading bits and a multiple of 16, so that few different numbers remain."""
    step = max(16, 1 << (number.bit_length() - 2))
    return -(-number // step) * step


def _in_threads(work: Callable[[int], Result], starts: Sequence[int], threads: int) -> Iterator[Result]:
    """`work` of each of `starts`, in order, on as many threads as faiss would use, each with its own search. One search on
    several threads often busy-waits for the slowest of them: on a loaded machine it took three times the processor time.
    """
    import faiss

    if threads == 1 or len(starts) == 1:
        yield from map(work, starts)
        return
    # The setting applies to the calling thread only.
    with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, starts)


def _among(rows: IntArray, ascending: IntArray) -> np.ndarray:
    """bool [n]: which rows are among some others, which are ascending."""
    place = np.minimum(np.searchsorted(ascending, rows), len(ascending) - 1)
    matches: np.ndarray = ascending[place] == rows
    return matches
