"""Compares many queries with all vectors on a GPU if faiss finds one: it proposes candidates, as on the CPU."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

from icltool.contracts import FloatArray, IntArray
from icltool.errors import IclWarning

#: (queries float32 [q, D], vectors float32 [n, D], k) -> inner products float32 and labels int64 [q, k], best first.
Search = Callable[[FloatArray, FloatArray, int], tuple[FloatArray, IntArray]]

#: Above the error of an inner product of unit vectors whose values were rounded to the 10 bits of TF32.
ERROR = 2.0**-9
#: The most neighbours of a query (a limit of faiss), and the number of queries from which copying the vectors to the
#: GPU pays off.
MOST, QUERIES = 2048, 64
#: Bytes of faiss's working memory, which reduce the memory left for a model.
_BYTES = 256 * 2**20

_failed: list[str] = []


def gpu_search(queries: int, fetch: int) -> Search | None:
    """faiss's search on the first GPU, for one thread at a time; None without a GPU, after a failure, and for searches
    unsuited to a GPU."""
    return _first_gpu() if queries >= QUERIES and fetch <= MOST and not _failed else None


def give_up(error: RuntimeError) -> None:
    """Searches on the CPU from now on, for example if other processes hold the memory or the kernels are for other GPUs."""
    _failed.append(" ".join(str(error).split()))
    warnings.warn(f"similarity search continues without the GPU: {_failed[-1][-200:]}", IclWarning, stacklevel=3)


@functools.cache
def _first_gpu() -> Search | None:
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return None
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_BYTES)

    def search(queries: FloatArray, vectors: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        scores, labels = faiss.knn_gpu(resources, queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT, device=0)
        return scores, labels

    return search
