"""Up to faiss' call on a GPU: what it is given, and what becomes of less exact scores and of errors. A machine with a GPU runs
the call itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from icltool.components.retrievers import gpu
from icltool.components.retrievers.nearest import nearest_rows
from icltool.contracts import FloatArray
from icltool.errors import IclWarning

faiss = pytest.importorskip("faiss")


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    gpu._first_gpu.cache_clear()
    yield
    gpu._first_gpu.cache_clear()
    gpu._failed.clear()


class Resources:
    def setTempMemory(self, size: int) -> None:  # noqa: N802, the name is faiss'
        self.size = size


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A faiss that finds a GPU, whose search rounds to TF32."""
    shapes: list[tuple[int, ...]] = []

    def knn_gpu(resources: Any, xq: FloatArray, xb: FloatArray, k: int, **options: Any) -> Any:
        assert options == {"metric": faiss.METRIC_INNER_PRODUCT, "device": 0}
        assert resources.size == gpu._BYTES
        assert xq.dtype == xb.dtype == np.float32
        assert xq.flags.c_contiguous
        assert xb.flags.c_contiguous
        shapes.append((len(xq), len(xb), k))
        return faiss.knn(_tf32(xq), _tf32(xb), k, metric=faiss.METRIC_INNER_PRODUCT)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(faiss, "knn_gpu", knn_gpu, raising=False)
    return shapes


def _tf32(values: FloatArray) -> FloatArray:
    """Cut to 10 bits of mantissa."""
    return (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def searched(queries: int, count: int = 10) -> tuple[list[list[int]], list[list[int]]]:
    """(with whatever GPU there is, without), over vectors of which many are too close for TF32."""
    rng = np.random.default_rng(3)
    base = (rng.standard_normal((40, 32)).repeat(40, axis=0) + 1e-3 * rng.standard_normal((1600, 32))).astype(
        np.float32
    )
    query_vectors = base[:queries] + np.float32(0.01)
    rows = nearest_rows(base, query_vectors, count, lambda q: np.array([q]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "QUERIES", 10**9)
        plain = nearest_rows(base, query_vectors, count, lambda q: np.array([q]))
    return rows.tolist(), plain.tolist()


def test_less_exact_scores_change_no_row(calls: list[tuple[int, ...]]) -> None:
    rows, plain = searched(200)
    assert rows == plain
    assert calls[0][:2] == (200, 1600)
    assert len(calls) > 1, "what TF32 leaves in doubt is searched more widely"


def test_few_queries_and_wide_searches_stay_on_the_cpu(
    calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert searched(gpu.QUERIES - 1)[0]
    assert not calls
    monkeypatch.setattr(gpu, "MOST", 30)
    rows, plain = searched(100, count=20)  # 20, the query's own row and a margin
    assert rows == plain
    assert not calls


def test_an_error_of_the_gpu_is_told_once_and_the_cpu_goes_on(
    calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        calls.append(())
        raise RuntimeError("Error in virtual void* faiss::gpu::...: cudaMalloc error out of memory")

    monkeypatch.setattr(faiss, "knn_gpu", full)
    with pytest.warns(IclWarning, match=r"without the GPU: .*out of memory"):
        rows, plain = searched(100)
    assert rows == plain
    assert len(calls) == 1


def test_without_a_gpu_nothing_is_tried() -> None:
    if getattr(faiss, "get_num_gpus", lambda: 0)():
        pytest.skip("this machine has a GPU")
    assert gpu.gpu_search(10_000, 10) is None
