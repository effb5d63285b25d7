"""Exact search: equal to brute force, the same for any batch, with repeated vectors, ties and large exclusions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.retrievers import nearest
from icltool.components.retrievers.nearest import NearestRows, nearest_rows, normalised
from icltool.contracts import FloatArray, IntArray
from icltool.errors import DataError

NONE = np.empty(0, dtype=np.int64)


def brute_force(base: FloatArray, query: FloatArray, count: int, excluded: IntArray) -> list[int]:
    unit, q = normalised(base).astype(np.float64), normalised(query[None])[0].astype(np.float64)
    scores = (unit * q).sum(axis=1)
    rows = [row for row in range(len(base)) if row not in set(excluded.tolist())]
    return sorted(rows, key=lambda row: (-scores[row], row))[:count]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_search_equals_brute_force(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    total, dim = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 12))
    base = rng.standard_normal((total, dim)).astype(np.float32)
    if data.draw(st.booleans()):  # few distinct vectors, and many ties between different ones
        base = np.round(base)
    base = base[rng.integers(0, total, total)]
    queries = np.round(rng.standard_normal((5, dim)), 1).astype(np.float32)
    excluded = [np.flatnonzero(rng.random(total) < rng.random()) for _ in queries]
    count = data.draw(st.integers(0, max(0, total - max(map(len, excluded)))))
    rows = nearest_rows(base, queries, count, excluded.__getitem__)
    assert rows.shape == (5, count)
    assert rows.dtype == np.int64
    for q in range(5):
        assert rows[q].tolist() == brute_force(base, queries[q], count, excluded[q])


def test_near_ties_beyond_single_precision_are_ordered_exactly() -> None:
    """Hundreds of vectors that float32 products cannot tell apart: the search must widen."""
    rng = np.random.default_rng(1)
    centre = rng.standard_normal(64)
    base = (centre + 1e-7 * rng.standard_normal((900, 64))).astype(np.float32)
    query = centre.astype(np.float32)
    rows = nearest_rows(base, query[None], 10, lambda _: NONE)
    assert rows[0].tolist() == brute_force(base, query, 10, NONE)


def test_a_query_alone_gets_what_it_gets_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    base = rng.standard_normal((3000, 48)).astype(np.float32)
    base = base[rng.integers(0, 3000, 3000)] + np.float32(1e-6) * rng.standard_normal((3000, 48)).astype(np.float32)
    queries = base[:100]
    search = NearestRows(base)
    whole = search.search(queries, 40, lambda q: np.array([q]))
    alone = np.concatenate([search.search(queries[q : q + 1], 40, lambda _, q=q: np.array([q])) for q in range(100)])
    assert (whole == alone).all()
    monkeypatch.setattr(nearest, "BATCH_QUERIES", 7)
    assert (search.search(queries, 40, lambda q: np.array([q])) == whole).all()


def test_blocks_of_the_index_set_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of consecutive rows, and of what repeated vectors leave of them; the last one is smaller than the answer."""
    rng = np.random.default_rng(6)
    base = rng.standard_normal((3100, 24)).astype(np.float32)
    for vectors in (base, base[rng.integers(0, 2600, 3100)]):
        whole = nearest_rows(vectors, base[:40], 90, lambda q: np.array([q]))
        with monkeypatch.context() as patch:
            patch.setattr(nearest, "BLOCK_BYTES", 1)
            assert (nearest_rows(vectors, base[:40], 90, lambda q: np.array([q])) == whole).all()
        assert whole[7].tolist() == brute_force(vectors, base[7], 90, np.array([7]))


def test_threads_change_neither_the_rows_nor_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(nearest, "BLOCK_BYTES", 1)
    base = np.random.default_rng(9).standard_normal((9000, 12)).astype(np.float32)
    before = faiss.omp_get_max_threads()
    try:
        results = []
        for threads in (1, 3):
            faiss.omp_set_num_threads(threads)
            results.append(nearest_rows(base, base[:50], 20, lambda q: np.array([q])))
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    assert (results[0] == results[1]).all()


def test_lengths_beyond_single_precision_are_ordered_exactly() -> None:
    rng = np.random.default_rng(7)
    base = rng.standard_normal((200, 6)).astype(np.float32)
    base *= np.where(np.arange(200) % 3, 1.0, np.where(np.arange(200) % 2, 1e-37, 1e37))[:, None].astype(np.float32)
    rows = nearest_rows(base, base[:9], 12, lambda _: NONE)
    for q in range(9):
        assert rows[q].tolist() == brute_force(base, base[q], 12, NONE)


def test_an_array_is_prepared_once_and_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = nearest.distinct_rows

    def counted(vectors: FloatArray) -> tuple[IntArray, IntArray]:
        calls.append(len(vectors))
        return real(vectors)

    monkeypatch.setattr(nearest, "distinct_rows", counted)
    base = np.random.default_rng(8).standard_normal((100, 4)).astype(np.float32)
    before = set(nearest._prepared)
    for start in range(0, 30, 10):
        nearest_rows(base, base[start : start + 10], 3, lambda _: NONE)
    assert calls == [100]
    base[:] = base[::-1].copy()
    assert nearest_rows(base, base[:1], 3, lambda _: NONE)[0].tolist() == brute_force(base, base[0], 3, NONE)
    assert calls == [100, 100], "an array that is filled anew is prepared anew"
    del base
    assert set(nearest._prepared) == before


def test_fewer_rows_are_the_first_of_more() -> None:
    rng = np.random.default_rng(3)
    base, queries = (rng.integers(-1, 2, (n, 6)).astype(np.float32) for n in (500, 20))
    longest = nearest_rows(base, queries, 100, lambda _: NONE)
    for count in (1, 10, 99):
        assert (nearest_rows(base, queries, count, lambda _: NONE) == longest[:, :count]).all()


def test_excluded_rows_never_leave_a_row_short() -> None:
    rng = np.random.default_rng(4)
    base = rng.standard_normal((1000, 8)).astype(np.float32)
    order = np.array(brute_force(base, base[0], 1000, NONE))
    rows = nearest_rows(base, base[:1], 5, lambda _: np.sort(order[:990]))
    assert rows[0].tolist() == order[990:995].tolist()
    with pytest.raises(DataError, match="fewer than 11 rows"):
        nearest_rows(base, base[:1], 11, lambda _: np.sort(order[:990]))


def test_identical_vectors_are_taken_by_row() -> None:
    base = np.tile(np.array([[1.0, 2.0, 3.0]], dtype=np.float32), (5000, 1))
    rows = nearest_rows(base, base[:3], 20, lambda q: np.array([q, 4]))
    for q in range(3):
        assert rows[q].tolist() == [row for row in range(30) if row not in (q, 4)][:20]


def test_vectors_of_zeros_are_least_alike_to_nothing_in_particular() -> None:
    base = np.array([[0, 0], [1, 0], [-1, 0]], dtype=np.float32)
    assert nearest_rows(base, base[1:2], 3, lambda _: NONE)[0].tolist() == [1, 0, 2]


def test_values_that_are_not_finite_are_a_data_error() -> None:
    base = np.ones((4, 3), dtype=np.float32)
    broken = base.copy()
    broken[2, 1] = np.nan
    with pytest.raises(DataError, match="row 2"):
        NearestRows(broken)
    with pytest.raises(DataError, match="queries' embeddings: row 2"):
        NearestRows(base).search(broken, 1, lambda _: NONE)


def test_embeddings_of_another_dimension_are_a_data_error() -> None:
    with pytest.raises(DataError, match="3 dimensions"):
        NearestRows(np.ones((4, 3), dtype=np.float32)).search(np.ones((2, 5), dtype=np.float32), 1, lambda _: NONE)


def test_faiss_is_not_imported_before_a_search() -> None:
    import subprocess
    import sys

    code = (
        "import sys, icltool.components.samplers.mix\n"
        "from icltool.components.retrievers import random, similarity\n"
        "print(sorted({'faiss', 'torch', 'h5py'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_search_is_bounded_in_memory() -> None:
    """Nothing of size queries x rows may be allocated."""
    import tracemalloc

    rng = np.random.default_rng(5)
    base = rng.standard_normal((20_000, 64), dtype=np.float32)
    tracemalloc.start()
    rows = nearest_rows(base, base[:1000], 64, lambda q: np.array([q]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.shape == (1000, 64)
    assert peak < 4 * base.nbytes < 1000 * 20_000 * 4
