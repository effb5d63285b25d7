"""Indexes that find the nearest rows without comparing all rows: inverted lists (IVF), compressed ones (IVF-PQ), HNSW
graphs.

They propose candidates; `retrievers.nearest` decides among them by exact products. The candidates of a query depend on the
vectors, the options and that query alone, not on other queries or threads.

Memory in bytes per distinct vector of D values, besides the embeddings themselves: "ivf" 4 D + 8, "ivf-pq" m + 8 (m at most
64), "hnsw" 4 D + about 8 x 32 + 20, and 4 D more while it is built. Building time: for N vectors there are 4 sqrt(N) lists,
k-means over 32 vectors per list, and one assignment of every vector, so that the time grows as N sqrt(N); a graph takes
some hundred comparisons per vector, a number that grows slowly with N.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from icltool.components.retrievers.lists import best_centres, nearest_centres, spherical_kmeans
from icltool.contracts import FloatArray, IntArray, Options, keyed_generator
from icltool.errors import ConfigError

#: Fewer distinct vectors than this are always searched exactly: an index would neither pay off nor be well trained.
LEAST_VECTORS = 2048
#: Lists per square root of the number of vectors N: a query is then compared with 4 sqrt(N) centres, and with sqrt(N) / 4
#: vectors for each list that it reads.
LISTS = 4.0
#: Vectors per list that k-means sees, and its iterations.
TRAINING_VECTORS = 32
ITERATIONS = 10
#: Links of a vertex of an HNSW graph (twice as many on its lowest layer), and candidates while it is built.
LINKS = 32
BUILD_EF = 64
#: Largest code of a vector in bytes, and vectors that train the codes.
CODE_BYTES = 64
CODE_TRAINING = 16_384
#: Candidates per requested row if scores are estimates from codes.
SPARE = 4
#: Vectors normalised and added at once.
_ROWS = 16_384

#: The normalised vectors float32 [n, D] at some positions int64 [n].
Units: TypeAlias = Callable[[IntArray], FloatArray]


class IndexOptions(Options):
    """How the nearest rows are searched. More `probes` or `ef` find more of the true neighbours, in more time; an option
    that the index ignores is refused."""

    index: Literal["exact", "ivf", "ivf-pq", "hnsw"] = Field(
        "exact", description="search for the nearest rows: exact, or with an approximate index of faiss"
    )
    probes: int = Field(32, ge=1, description="ivf, ivf-pq: number of lists to search per query")
    ef: int = Field(128, ge=1, description="hnsw: number of candidates to keep while walking the graph")

    @model_validator(mode="after")
    def _refuse_ignored(self) -> IndexOptions:
        for name, users in (("probes", ("ivf", "ivf-pq")), ("ef", ("hnsw",))):
            if name in self.model_fields_set and self.index not in users:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} has no effect with index={self.index!r}",
                    f"leave it out, or choose index={users[0]}",
                )
        return self


EXACT = IndexOptions()


class CandidateIndex(Protocol):
    """An index of U unit vectors. An effort is a number of probed lists, or of candidates on a walk; from `most` up an
    exact search costs no more. `estimates` is true if scores are not the products of the vectors themselves."""

    most: int
    estimates: bool

    def effort(self, options: IndexOptions, width: int) -> int:
        """The effort at which the search for `width` candidates of a query starts."""
        ...

    def candidates(self, queries: FloatArray, effort: int, width: int) -> tuple[FloatArray, IntArray]:
        """The best `width` vectors for each of `queries` [q, D]: scores float32 and positions int64
        [q, width], best first; positions are -1 where there are fewer."""
        ...


class InvertedLists:
    """Vectors in lists around centres (Sivic and Zisserman, Video Google, 2003); a search reads the lists whose centres
    are nearest. With `compressed`, product-quantised residuals stand for the vectors (Jégou, Douze, Schmid: Product
    quantization for nearest neighbor search, 2011)."""

    def __init__(self, units: Units, total: int, dim: int, compressed: bool = False) -> None:
        faiss = _faiss()
        self.most = min(total, round(LISTS * math.sqrt(total)))
        self.estimates = compressed
        sample, self.centres = self._trained(units, total)
        self._quantiser = faiss.IndexFlatIP(dim)
        self._quantiser.add(self.centres)
        metric = faiss.METRIC_INNER_PRODUCT
        if compressed:
            self._index = faiss.IndexIVFPQ(self._quantiser, dim, self.most, code_bytes(dim), 8, metric)
            self._index.pq.cp.niter = ITERATIONS
            self._index.pq.cp.min_points_per_centroid = 1  # otherwise it warns about small sets, once per byte
            with _one_thread():
                self._index.train(sample[:CODE_TRAINING])
        else:
            self._index = faiss.IndexIVFFlat(self._quantiser, dim, self.most, metric)
        del sample
        self._fill(units, total)

    def _trained(self, units: Units, total: int) -> tuple[FloatArray, FloatArray]:
        """(unit vectors in the order of their draw, their centres)."""
        generator = keyed_generator(0, "retrieval.lists")
        sample = units(generator.choice(total, min(total, TRAINING_VECTORS * self.most), replace=False))
        return sample, spherical_kmeans(sample, np.arange(self.most), ITERATIONS)

    def _fill(self, units: Units, total: int) -> None:
        """Fills each list at once: a growing list would take up to twice the memory."""
        faiss = _faiss()
        owner = np.empty(total, dtype=np.int32)
        for start in range(0, total, _ROWS):
            part = np.arange(start, min(start + _ROWS, total))
            owner[part] = nearest_centres(units(part), self.centres)
        order = np.argsort(owner, kind="stable").astype(np.int64)
        ends = np.searchsorted(owner[order], np.arange(self.most + 1))
        with _one_thread():
            for number in range(self.most):
                members = order[ends[number] : ends[number + 1]]
                if len(members):
                    codes = self._codes(units(members), number)
                    self._index.invlists.add_entries(
                        number, len(members), faiss.swig_ptr(members), faiss.swig_ptr(codes)
                    )
        self._index.ntotal = total

    def _codes(self, vectors: FloatArray, number: int) -> np.ndarray:
        """The codes of some unit vectors in list `number`, uint8 [n, code size]."""
        faiss = _faiss()
        if not self.estimates:
            return np.ascontiguousarray(vectors).view(np.uint8)
        codes = np.empty((len(vectors), self._index.code_size), dtype=np.uint8)
        lists = np.full(len(vectors), number, dtype=np.int64)
        self._index.encode_vectors(
            len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(lists), faiss.swig_ptr(codes), False
        )
        return codes

    def effort(self, options: IndexOptions, width: int) -> int:
        return options.probes

    def candidates(self, queries: FloatArray, effort: int, width: int) -> tuple[FloatArray, IntArray]:
        faiss = _faiss()
        probes = min(effort, self.most)
        lists = best_centres(queries, self.centres, probes)
        # faiss expects the products with the centres; a matrix product would make them depend on the other queries.
        near = np.zeros(lists.shape, dtype=np.float32)
        if self.estimates:
            for start in range(0, len(queries), 64):
                part = slice(start, start + 64)
                near[part] = (self.centres[lists[part]] * queries[part, None].astype(np.float64)).sum(axis=2)
        scores = np.empty((len(queries), width), dtype=np.float32)
        labels = np.empty((len(queries), width), dtype=np.int64)
        self._index.search_preassigned_c(
            len(queries),
            faiss.swig_ptr(queries),
            width,
            *(faiss.swig_ptr(array) for array in (lists, near, scores, labels)),
            False,
            faiss.SearchParametersIVF(nprobe=probes),
        )
        return scores, labels


class Graph:
    """A hierarchical navigable small-world graph (Malkov and Yashunin, 2020) over the vectors themselves."""

    estimates = False

    def __init__(self, units: Units, total: int, dim: int) -> None:
        faiss = _faiss()
        # A walk that keeps a sixteenth of all vertices has compared most of them.
        self.most = max(1, total // 16)
        self._index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = BUILD_EF
        vectors = np.empty((total, dim), dtype=np.float32)
        for start in range(0, total, _ROWS):
            part = np.arange(start, min(start + _ROWS, total))
            vectors[part] = units(part)
        # All at once: the layers are then built from the top. Builders that lock vertices depend on the threads' order.
        if hasattr(faiss.HNSW, "compute_forward_links_deterministic"):
            self._index.add(vectors)
        else:
            with _one_thread():
                self._index.add(vectors)

    def effort(self, options: IndexOptions, width: int) -> int:
        return max(options.ef, width)

    def candidates(self, queries: FloatArray, effort: int, width: int) -> tuple[FloatArray, IntArray]:
        faiss = _faiss()
        results: tuple[FloatArray, IntArray] = self._index.search(
            queries, width, params=faiss.SearchParametersHNSW(efSearch=effort)
        )
        return results


def build_index(kind: str, units: Units, total: int, dim: int) -> CandidateIndex:
    """An index of `total` vectors of `dim` values, of a kind other than "exact"."""
    if kind == "hnsw":
        return Graph(units, total, dim)
    return InvertedLists(units, total, dim, compressed=kind == "ivf-pq")


def code_bytes(dim: int) -> int:
    """Bytes of a vector's code in "ivf-pq": the largest divisor of `dim` up to CODE_BYTES, of dim / 4 or less if there is
    one."""
    most = min(CODE_BYTES, max(1, dim // 4))
    return max(size for size in range(1, most + 1) if dim % size == 0)


def _faiss() -> Any:
    """The library, imported when an index is first built; its stubs are incomplete."""
    import faiss

    return faiss


@contextmanager
def _one_thread() -> Iterator[None]:
    """faiss uses one thread within the context; the setting applies to the calling thread only."""
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
