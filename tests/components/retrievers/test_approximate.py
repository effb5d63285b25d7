"""Indexes propose, exact products decide: against the exact search, whatever the batch, the threads and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.retrievers import approximate, nearest
from icltool.components.retrievers.approximate import IndexOptions
from icltool.components.retrievers.lists import best_centres, nearest_centres, spherical_kmeans
from icltool.components.retrievers.nearest import NearestRows, nearest_rows, normalised
from icltool.contracts import FloatArray, IntArray
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import load_registry
from icltool.testing import check_retriever, check_sampler, make_anchors, make_index
from tests.benchmarks.nearest_indexes import made_vectors, recall

NONE = np.empty(0, dtype=np.int64)
KINDS = ("ivf", "ivf-pq", "hnsw")
#: Enough effort of each kind to find nearly all, and so little that queries run short of candidates.
MUCH = {"ivf": {"probes": 48}, "ivf-pq": {"probes": 48}, "hnsw": {"ef": 160}}
LITTLE = {"ivf": {"probes": 1}, "ivf-pq": {"probes": 1}, "hnsw": {"ef": 1}}


@pytest.fixture(scope="module")
def clustered() -> tuple[FloatArray, FloatArray]:
    """6,000 rows x 32, one in six repeated, and 60 queries."""
    base, queries, _ = made_vectors(5000, 32, 60, seed=3)
    base = np.concatenate([base, base[:1000]])
    return base, queries


def nothing(_: int) -> IntArray:
    return NONE


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_the_true_neighbours_are_found(kind: str, clustered: tuple[FloatArray, FloatArray]) -> None:
    base, queries = clustered
    true = nearest_rows(base, queries, 10, nothing)
    neighbours = nearest_rows(base, queries, 10, nothing, IndexOptions(index=kind, **MUCH[kind]))
    assert recall(neighbours, true, 10) > 0.97
    few = nearest_rows(base, queries, 10, nothing, IndexOptions(index=kind, **LITTLE[kind]))
    assert recall(few, true, 10) <= recall(neighbours, true, 10)


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_in_the_index(kind: str, clustered: tuple[FloatArray, FloatArray]) -> None:
    """The first and the last, too: each finds itself, or the row that repeats it."""
    base, _ = clustered
    rows = np.array([0, 1, 999, 1000, 4999, 5000, 5999])
    neighbours = nearest_rows(base, base[rows], 2, nothing, IndexOptions(index=kind, **MUCH[kind]))
    for row, near in zip(rows.tolist(), neighbours.tolist(), strict=True):
        assert sorted(near) == [row, row + 5000] if row < 1000 else row in near


@pytest.mark.parametrize("kind", KINDS)
def test_order_is_that_of_exact_products(kind: str, clustered: tuple[FloatArray, FloatArray]) -> None:
    base, queries = clustered
    neighbours = nearest_rows(base, queries, 20, nothing, IndexOptions(index=kind, **LITTLE[kind]))
    unit, query_vectors = normalised(base).astype(np.float64), normalised(queries).astype(np.float64)
    for rows, query in zip(neighbours, query_vectors, strict=True):
        scores = (unit[rows] * query).sum(axis=1)
        assert rows.tolist() == rows[np.lexsort((rows, -scores))].tolist()
        assert len(set(rows.tolist())) == 20


@pytest.mark.parametrize("kind", ["ivf", "ivf-pq"])
def test_all_lists_are_the_exact_search(kind: str, clustered: tuple[FloatArray, FloatArray]) -> None:
    base, queries = clustered
    true = nearest_rows(base, queries, 30, lambda q: np.array([q]))
    assert (
        nearest_rows(base, queries, 30, lambda q: np.array([q]), IndexOptions(index=kind, probes=10_000)) == true
    ).all()


def test_all_but_one_list_are_nearly_the_exact_search(clustered: tuple[FloatArray, FloatArray]) -> None:
    """Here the index itself answers."""
    base, queries = clustered
    search = NearestRows(base, IndexOptions(index="ivf"))
    index = search._index()
    assert index is not None
    search.options = IndexOptions(index="ivf", probes=index.most - 1)
    true = nearest_rows(base, queries, 30, nothing)
    assert (search.search(queries, 30, nothing) == true).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("effort", [MUCH, LITTLE])
def test_a_query_alone_gets_what_it_gets_in_any_batch(
    kind: str,
    effort: dict[str, dict[str, int]],
    clustered: tuple[FloatArray, FloatArray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though some leave out many rows, so that others of their batch are searched with them, or widened."""
    base, queries = clustered
    rng = np.random.default_rng(1)
    left_out = [np.sort(rng.permutation(len(base))[: (q % 5) * 300]) for q in range(len(queries))]
    search = NearestRows(base, IndexOptions(index=kind, **effort[kind]))
    whole = search.search(queries, 25, left_out.__getitem__)
    alone = [search.search(queries[q : q + 1], 25, lambda _, q=q: left_out[q])[0] for q in range(len(queries))]
    assert (whole == np.array(alone)).all()
    monkeypatch.setattr(nearest, "BATCH_QUERIES", 7)
    assert (search.search(queries[::-1], 25, left_out[::-1].__getitem__) == whole[::-1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_neither_the_index_nor_the_rows(kind: str, clustered: tuple[FloatArray, FloatArray]) -> None:
    import faiss

    base, queries = clustered
    before = faiss.omp_get_max_threads()
    results = []
    try:
        for threads in (1, 3):
            faiss.omp_set_num_threads(threads)
            # A copy, so that the index is built again.
            results.append(nearest_rows(base.copy(), queries, 40, nothing, IndexOptions(index=kind, **LITTLE[kind])))
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    assert (results[0] == results[1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_full_and_free_of_what_is_left_out(kind: str, clustered: tuple[FloatArray, FloatArray]) -> None:
    """Even where the whole neighbourhood is left out, or hardly any row is left."""
    base, queries = clustered
    near = nearest_rows(base, queries, 5900, nothing)
    options = IndexOptions(index=kind, **LITTLE[kind])
    for size in (0, 300, 2000, 5900):
        left_out = [np.sort(near[q, :size]) for q in range(4)]
        neighbours = nearest_rows(base, queries[:4], 50, left_out.__getitem__, options)
        true = nearest_rows(base, queries[:4], 50, left_out.__getitem__)
        for q in range(4):
            assert len(np.unique(neighbours[q])) == 50
            assert not np.isin(neighbours[q], left_out[q]).any()
        if size == 5900:
            assert (neighbours == true).all()
    with pytest.raises(DataError, match="fewer than 101 rows"):
        nearest_rows(base, queries[:1], 101, lambda _: np.sort(near[0, :5900]), options)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_search_is_full_ordered_and_no_better_than_exact(data: st.DataObject) -> None:
    """Small sets, so that every search runs short: against the plain twin that compares all."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kind = data.draw(st.sampled_from(["ivf", "hnsw"]))
    total, dim = data.draw(st.integers(2, 300)), data.draw(st.integers(2, 9))
    base = rng.standard_normal((total, dim)).astype(np.float32)
    if data.draw(st.booleans()):  # many ties, and rows of zeros
        base = np.round(base)
    queries = np.round(rng.standard_normal((6, dim)), 1).astype(np.float32)
    left_out = [np.flatnonzero(rng.random(total) < rng.random()) for _ in queries]
    count = data.draw(st.integers(0, max(0, total - max(map(len, left_out)))))
    level = data.draw(st.integers(1, 6))
    options = IndexOptions(index=kind, **{"ef" if kind == "hnsw" else "probes": level})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate, "LEAST_VECTORS", 1)
        neighbours = nearest_rows(base, queries, count, left_out.__getitem__, options)
    true = nearest_rows(base, queries, count, left_out.__getitem__)
    unit, query_vectors = normalised(base).astype(np.float64), normalised(queries).astype(np.float64)
    for q in range(6):
        scores, best = ((unit[rows[q]] * query_vectors[q]).sum(axis=1) for rows in (neighbours, true))
        assert len(np.unique(neighbours[q])) == count
        assert not np.isin(neighbours[q], left_out[q]).any()
        assert neighbours[q].tolist() == neighbours[q][np.lexsort((neighbours[q], -scores))].tolist()
        assert (scores <= best).all()


def test_an_index_is_built_once_for_an_array_and_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    real = approximate.build_index

    def counted(kind: str, *arguments: Any) -> Any:
        built.append(kind)
        return real(kind, *arguments)

    monkeypatch.setattr(approximate, "build_index", counted)
    base, queries, _ = made_vectors(3000, 16, 30)
    before = set(nearest._prepared)
    for probes in (2, 8):
        for start in range(0, 30, 10):
            nearest_rows(base, queries[start : start + 10], 3, nothing, IndexOptions(index="ivf", probes=probes))
    nearest_rows(base, queries, 3, nothing)
    assert built == ["ivf"], "its options of searching do not change it"
    nearest_rows(base, queries, 3, nothing, IndexOptions(index="hnsw"))
    assert built == ["ivf", "hnsw"]
    del base
    assert set(nearest._prepared) == before


def test_few_vectors_are_searched_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "build_index", lambda *_: pytest.fail("an index was built"))
    base, queries, _ = made_vectors(1000, 8, 20)
    assert (
        nearest_rows(base, queries, 9, nothing, IndexOptions(index="ivf-pq")) == nearest_rows(base, queries, 9, nothing)
    ).all()


@pytest.mark.parametrize(("count", "width"), [(1, 4), (3, 40), (40, 40), (60, 40)])
def test_best_centres_are_those_of_double_precision(count: int, width: int) -> None:
    rng = np.random.default_rng(5)
    centres = normalised(rng.standard_normal((width, 6)).astype(np.float32))
    centres = np.concatenate([centres, centres + np.float32(3e-8), centres])  # close calls, and ties
    units = normalised(rng.standard_normal((90, 6)).astype(np.float32))
    best = best_centres(units, centres, count)
    for row in range(90):
        scores = (centres.astype(np.float64) * units[row].astype(np.float64)).sum(axis=1)
        assert best[row].tolist() == sorted(np.argsort(-scores, kind="stable")[:count].tolist())
    if count == 1:
        assert (nearest_centres(units, centres) == best[:, 0]).all()


def test_kmeans_finds_separate_clusters_and_leaves_no_centre_unused() -> None:
    rng = np.random.default_rng(6)
    owner = rng.integers(0, 5, 400)
    units = normalised((np.eye(8)[owner] + 0.05 * rng.standard_normal((400, 8))).astype(np.float32))
    start = np.flatnonzero(owner == 0)[:2].tolist() + [int(np.argmax(owner == c)) for c in range(1, 5)]
    centres = spherical_kmeans(units, np.array(start), 10)
    labels = nearest_centres(units, centres)
    assert set(labels.tolist()) == set(range(6))
    for cluster in range(6):
        assert len(set(owner[labels == cluster].tolist())) == 1
    equal = spherical_kmeans(np.tile(units[:1], (9, 1)), np.arange(3), 4)
    assert (equal == units[0]).all()


def test_codes_divide_any_dimension() -> None:
    assert [approximate.code_bytes(d) for d in (512, 768, 256, 100, 7, 1)] == [64, 64, 64, 25, 1, 1]


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"index": "hsnw"}, "index must be 'exact', 'ivf', 'ivf-pq' or 'hnsw', got 'hsnw'", "did you mean 'hnsw'"),
        ({"index": 7}, "index must be 'exact', 'ivf', 'ivf-pq' or 'hnsw', got 7", "default exact"),
        ({"index": "ivf", "probes": 0}, "probes must be a positive integer, got 0", "for example probes=32"),
        ({"index": "hnsw", "ef": 2.5}, "ef must be a positive integer, got 2.5", "for example ef=128"),
        ({"index": "hnsw", "probes": 8}, "probes=8 has no effect with index='hnsw'", "index=ivf"),
        ({"index": "exact", "ef": 8}, "ef=8 has no effect with index='exact'", "index=hnsw"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str, hint: str) -> None:
    registry = load_registry()
    for kind, name in [("retrievers", n) for n in ("i2i", "t2i", "mmr", "dpp", "kmeans")] + [
        ("samplers", n) for n in ("image-sim", "text-sim", "mix")
    ]:
        with pytest.raises(ConfigError) as caught:
            registry.create(kind, name, **options)
        assert message in caught.value.message
        assert hint in str(caught.value.hint)


def test_defaults_are_exact() -> None:
    assert load_registry().create("retrievers", "i2i").nested is True
    assert load_registry().create("retrievers", "i2i", index="ivf").nested is False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", ["i2i", "mmr", "image-sim", "mix"])
def test_methods_and_samplers_conform_with_an_index(make: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "LEAST_VECTORS", 256)  # codes need as many
    registry = load_registry()
    rows = make_index(1200, needs=frozenset({"image", "text"}))
    if make in ("i2i", "mmr"):
        check_retriever(lambda: registry.create("retrievers", make, index=kind, **LITTLE[kind]), index=rows)
    else:
        check_sampler(lambda: registry.create("samplers", make, index=kind, **LITTLE[kind]), count=1200)


def test_a_sampler_that_reads_nearly_all_lists_gives_the_exact_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "LEAST_VECTORS", 1)
    rows = make_index(600)
    anchors = make_anchors(rows, range(0, 600, 11))
    create: Callable[..., Any] = load_registry().create
    plain = create("samplers", "mix").sample(rows, anchors, 16, 4)
    assert (create("samplers", "mix", index="ivf", probes=90).sample(rows, anchors, 16, 4) == plain).all()
