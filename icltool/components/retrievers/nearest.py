"""Nearest neighbours by cosine: faiss finds candidates, double precision decides their order.

A faiss search computes in float32, and its rounding depends on how many queries are searched at once. Its scores
therefore only select candidates; the final order comes from double-precision products that depend on the two vectors
alone, so that a query's neighbours never depend on the other queries, on threads, or on the machine. The search is
exact, unless an index is asked for that proposes candidates without comparing all vectors (`retrievers.approximate`).
Where faiss finds a GPU, that is where an exact search compares many queries with all vectors.
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

#: Neighbours fetched beyond the ones that are needed, so that few searches must be repeated.
MARGIN = 16
#: Bytes that the answers of one search (float32 score and int64 label per neighbour) may take.
BATCH_BYTES = 64 * 2**20
#: Queries searched at once, at most.
BATCH_QUERIES = 4096
#: Bytes of index vectors that are normalised and searched at once, by each thread.
BLOCK_BYTES = 96 * 2**20
#: Rows normalised at once.
_NORMALISE_ROWS = 4096


def normalised(vectors: FloatArray, name: str = "embeddings") -> FloatArray:
    """L2-normalised copy, float32 [n, D]; rows of zeros stay zero. DataError when a value is not finite."""
    norms = _norms(vectors, name)
    result = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), _NORMALISE_ROWS):
        part = slice(start, start + _NORMALISE_ROWS)
        result[part] = vectors[part].astype(np.float64) / norms[part, None]
    return result


def _norms(vectors: FloatArray, name: str) -> Float64Array:
    """L2 norms float64 [n], 1 for rows of zeros; each depends on its row alone. DataError when a value is not finite."""
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
    """What a search knows of its vectors: `norms` float64 [N]; `first` int64 [U], the first row of each distinct vector;
    the rows of distinct vector u, ascending, are `order[starts[u] : starts[u + 1]]`; `sample` is some of the values;
    `indexes` are those that were built, by kind."""

    norms: Float64Array
    first: IntArray
    order: IntArray
    starts: IntArray
    sample: bytes
    indexes: dict[str, CandidateIndex] = field(default_factory=dict)
    building: threading.Lock = field(default_factory=threading.Lock)


#: By the address of an array that is still in use elsewhere.
_prepared: dict[int, tuple[weakref.ref[FloatArray], _Prepared]] = {}


def _prepare(vectors: FloatArray) -> _Prepared:
    """Kept for as long as the array lives: stages ask for the neighbours of a few hundred queries at a time.

    An array that was filled again is prepared again; single changed values are not noticed.
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
    prepared = _Prepared(norms, first, order, starts, sample)
    _prepared[key] = (weakref.ref(vectors, lambda _: _prepared.pop(key, None)), prepared)
    return prepared


class NearestRows:
    """Searches one set of vectors, float32 [N, D]: exactly, or through an index (`options`).

    An index is built at the first search and kept as long as the array lives. It proposes candidates, whose order is then
    that of exact products; a query that does not get enough of them is searched again with more effort, at last exactly.
    So an answer is always full, but may lack a row that is nearer; and fewer rows need not be the first of more.

    Equal vectors (an image that belongs to several questions, a question asked of several images) are searched once.
    An exact search does not copy the vectors: beyond them it holds a few numbers per row, and less than a gigabyte while
    searching. What an index holds is said in `retrievers.approximate`.
    They must not change as long as it is used.
    """

    def __init__(self, vectors: FloatArray, options: IndexOptions = EXACT) -> None:
        self.vectors, self.options = vectors, options
        self.total, self.dim = vectors.shape
        self._known = known = _prepare(vectors)
        self._norms, self._first, self._order, self._starts = known.norms, known.first, known.order, known.starts
        self._error = rounding_error(self.dim)

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
            scaled = normalised(queries[start : start + size], "the queries' embeddings")
            left_out = [excluded(start + q) for q in range(len(scaled))]
            self._search_batch(scaled, left_out, count, result[start : start + len(scaled)])
        return result

    def units(self, rows: IntArray) -> Float64Array:
        """The normalised vectors of some rows, float64 [n, D] (rounded to float32 on the way, as `normalised` does)."""
        scaled = (self.vectors[rows].astype(np.float64) / self._norms[rows, None]).astype(np.float32)
        normal: Float64Array = scaled.astype(np.float64)
        return normal

    def _index(self) -> CandidateIndex | None:
        """The index that the options ask for, built by the first who asks; None where the search is exact."""
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
        """Fills `result` [q, count] for the queries whose candidates are enough; the positions of the others.

        What is asked for a query depends on it alone.
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
        """Fills `result` for the queries at `pending` by comparing all vectors. Queries whose candidates leave a doubt are
        searched again, more widely."""
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
        """The best distinct vectors by float32 products, best first: scores float32 and labels int64 [q, fetch], and what
        bounds the error of a score."""
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
        """The best distinct vectors by `search` on so many threads. The index vectors are normalised a block at a time, so that
        no normalised copy of all is needed."""
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
        """Normalised vectors float32 [n, D] for the search, within a few units in the last place; in `space`."""
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
        """The `count` best allowed rows among the fetched vectors; None when one that was not fetched might be better.

        `near` float32 are the vectors' scores, descending, each within `error`; `floor` is what no vector outside `labels`
        exceeds.
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
        # Only vectors that the search leaves a chance need the exact product.
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
    """To two leading bits and a multiple of 16, so that few different numbers remain."""
    step = max(16, 1 << (number.bit_length() - 2))
    return -(-number // step) * step


def _in_threads(work: Callable[[int], Result], starts: Sequence[int], threads: int) -> Iterator[Result]:
    """`work` of each of `starts`, in order, on as many threads as faiss would use; each searches on its own.

    One search on several threads waits for the slowest of them many times, and burns the time: on a machine that has
    other work to do it took three times the processor time.
    """
    import faiss

    if threads == 1 or len(starts) == 1:
        yield from map(work, starts)
        return
    # The setting is the calling thread's own.
    with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, starts)


def _among(rows: IntArray, ascending: IntArray) -> np.ndarray:
    """bool [n]: which rows are among some ascending ones."""
    place = np.minimum(np.searchsorted(ascending, rows), len(ascending) - 1)
    matches: np.ndarray = ascending[place] == rows
    return matches
