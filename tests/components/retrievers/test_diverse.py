"""mmr, dpp and kmeans against plain twins; what a pool holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from icltool.components.retrievers.dpp import DPPOptions, DPPRetriever
from icltool.components.retrievers.kmeans import KMeansOptions, KMeansRetriever, _draw, representatives
from icltool.components.retrievers.mmr import MMROptions, MMRRetriever
from icltool.components.retrievers.nearest import nearest_rows
from icltool.components.retrievers.options import PoolOptions
from icltool.components.retrievers.pool import Pool, pools
from icltool.contracts import Float64Array, IndexSet, QuerySet
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component, load_registry
from icltool.testing import check_retriever, make_anchors, make_index, make_queries

METHODS = ["mmr", "dpp", "kmeans"]


def units(vectors: Any) -> Float64Array:
    wide = np.asarray(vectors, dtype=np.float64)
    unit: Float64Array = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit


def spread(count: int = 120, dim: int = 8, seed: int = 0) -> tuple[IndexSet, QuerySet]:
    """An index set without leaks or repeated vectors, and ten queries."""
    rng = np.random.default_rng(seed)
    none = np.full(count, -1)
    image, text = rng.standard_normal((2, count, dim)).astype(np.float32)
    index = IndexSet(np.arange(count), np.arange(count), none, image, text)
    queries, words = rng.standard_normal((2, 10, dim)).astype(np.float32)
    ids = np.arange(count, count + 10)
    return index, QuerySet(ids, ids, none[:10], queries, words)


@pytest.mark.parametrize("name", METHODS)
def test_a_built_in_retriever_conforms(name: str) -> None:
    check_retriever(lambda: load_registry().create("retrievers", name))
    check_retriever(lambda: load_registry().create("retrievers", name, pool=20, query="text", demonstration="image"))


def test_a_pool_is_the_nearest_rows_that_do_not_leak() -> None:
    index = make_index(240)
    queries = make_anchors(index, range(0, 240, 12))
    assert index.text is not None
    assert queries.image is not None
    result = list(pools("mmr", PoolOptions(demonstration="text", pool=30), index, queries, 4))
    rows = nearest_rows(index.text, queries.image, 30, lambda q: index.leaking_rows(queries, q))
    for position, pool in enumerate(result):
        assert pool.rows.tolist() == rows[position].tolist()
        cosines = units(index.text[pool.rows]) @ units(queries.image[position : position + 1])[0]
        np.testing.assert_allclose(pool.relevance, cosines, rtol=0, atol=1e-6)
        assert (np.diff(pool.relevance) <= 0).all()
        products = units(index.text[pool.rows]) @ units(index.text[pool.rows]).T
        np.testing.assert_allclose(pool.similarities(3), products[3], rtol=0, atol=1e-6)


def test_a_pool_larger_than_what_is_left_takes_all_that_is_left() -> None:
    """However many rows leak for the other queries of the call."""
    index = make_index(60)
    queries = make_anchors(index, range(20))
    sizes = [len(pool) for pool in pools("mmr", PoolOptions(pool=55), index, queries, 3)]
    assert sizes == [min(55, 60 - len(index.leaking_rows(queries, q))) for q in range(20)]
    assert len(set(sizes)) > 1


@pytest.mark.parametrize("method", METHODS)
def test_too_small_a_pool_or_index_set_is_refused(method: str) -> None:
    index, queries = spread()
    with pytest.raises(ConfigError, match="a pool of 4 rows has no 5 demonstrations"):
        component("retrievers", method, pool=4).retrieve(index, queries, 5, 0)
    few = make_index(30)
    with pytest.raises(DataError, match="do not leak its answer"):
        component("retrievers", method, pool=100).retrieve(few, make_anchors(few, range(30)), 29, 0)
    assert component("retrievers", method).retrieve(index, queries, 0, 0).shape == (10, 0)


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("mmr", {"trade_off": 1.5}),
        ("mmr", {"trade_off": "much"}),
        ("mmr", {"pool": 0}),
        ("dpp", {"trade_off": 0}),
        ("dpp", {"demonstration": "audio"}),
        ("kmeans", {"iterations": 2.5}),
        ("kmeans", {"pool": True}),
    ],
)
def test_wrong_options_are_named(method: str, option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=f"{name}[ =]"):
        component("retrievers", method, **option)


def test_mmr_is_the_formula() -> None:
    index, queries = spread()
    assert index.image is not None
    assert queries.image is not None
    rows = MMRRetriever(MMROptions(trade_off=0.4, pool=25)).retrieve(index, queries, 6, 0)
    unit, query_vectors = units(index.image), units(queries.image)
    for position in range(10):
        relevance = unit @ query_vectors[position]
        pool = np.argsort(-relevance)[:25].tolist()
        taken: list[int] = []
        for _ in range(6):
            scores = {
                row: 0.4 * relevance[row] - 0.6 * max((unit[row] @ unit[other] for other in taken), default=0.0)
                for row in pool
                if row not in taken
            }
            taken.append(max(scores, key=lambda row: scores[row]))
        assert rows[position].tolist() == taken


def test_mmr_at_one_is_similarity_search_and_at_less_spreads_out() -> None:
    index, queries = spread()
    nearest = load_registry().create("retrievers", "i2i").retrieve(index, queries, 6, 0)
    assert (MMRRetriever(MMROptions(trade_off=1.0)).retrieve(index, queries, 6, 0) == nearest).all()
    assert index.image is not None
    unit = units(index.image)
    spreads = [
        np.mean([(unit[rows] @ unit[rows].T)[np.triu_indices(6, 1)].mean() for rows in chosen])
        for chosen in (nearest, MMRRetriever(MMROptions(trade_off=0.5)).retrieve(index, queries, 6, 0))
    ]
    assert spreads[1] < spreads[0] - 0.1


def test_dpp_maximises_the_determinant_step_by_step() -> None:
    index, queries = spread()
    assert index.image is not None
    assert queries.image is not None
    rows = DPPRetriever(DPPOptions(trade_off=0.3, pool=20)).retrieve(index, queries, 5, 0)
    unit, query_vectors = units(index.image), units(queries.image)
    for position in range(10):
        relevance = unit @ query_vectors[position]
        pool = np.argsort(-relevance)[:20].tolist()
        quality = np.exp(relevance / 0.6)
        kernel = quality[:, None] * (1 + unit @ unit.T) / 2 * quality
        taken: list[int] = []
        for _ in range(5):
            gains = {
                row: np.linalg.slogdet(kernel[np.ix_([*taken, row], [*taken, row])])[1]
                for row in pool
                if row not in taken
            }
            taken.append(max(gains, key=lambda row: gains[row]))
        assert rows[position].tolist() == taken


def test_dpp_fills_up_with_equal_vectors_by_relevance() -> None:
    """Twelve rows of four vectors: the first four are one of each, then the repetitions follow, nearest first."""
    vectors = np.repeat(np.eye(4, 5, dtype=np.float32) + np.float32(0.2), 3, axis=0)
    index = IndexSet(np.arange(12), np.arange(12), np.full(12, -1), vectors)
    query = np.array([[4, 3, 2, 1, 0]], dtype=np.float32)
    queries = QuerySet(np.array([99]), np.array([99]), np.array([-1]), query)
    rows = DPPRetriever(DPPOptions(trade_off=100.0)).retrieve(index, queries, 12, 0)[0].tolist()
    assert rows[:4] == [0, 3, 6, 9]
    assert rows[4:] == [1, 2, 4, 5, 7, 8, 10, 11]


def test_kmeans_takes_one_of_each_of_well_parted_clusters() -> None:
    rng = np.random.default_rng(1)
    centres = np.eye(4, 8)
    vectors = np.concatenate([c + 0.05 * rng.standard_normal((12, 8)) for c in centres]).astype(np.float32)
    order = rng.permutation(48)
    index = IndexSet(np.arange(48), np.arange(48), np.full(48, -1), vectors[order])
    query_vectors = (centres.sum(axis=0) + 0.3 * rng.standard_normal((5, 8))).astype(np.float32)
    queries = QuerySet(np.arange(100, 105), np.arange(100, 105), np.full(5, -1), query_vectors)
    unit = units(vectors[order])
    for answer in KMeansRetriever(KMeansOptions()).retrieve(index, queries, 4, 0):
        clusters = order[answer] // 12
        assert sorted(clusters.tolist()) == [0, 1, 2, 3]
        for row, cluster in zip(answer.tolist(), clusters.tolist(), strict=True):
            members = np.flatnonzero(order // 12 == cluster)
            distances = np.linalg.norm(unit[members] - unit[members].mean(axis=0), axis=1)
            assert row == members[np.argmin(distances)]


@pytest.mark.parametrize("seed", range(5))
def test_kmeans_is_lloyds_iterations_on_the_vectors(seed: int) -> None:
    """From the same first centres, computed with the vectors where the method has only their products."""
    unit = units(np.random.default_rng(seed).standard_normal((40, 6)))
    pool = Pool(np.random.default_rng(9).permutation(1000)[:40].astype(np.int64), unit, np.linspace(1, 0, 40))
    squared = ((unit[:, None] - unit) ** 2).sum(axis=2)
    centres = unit[_draw(squared, 5, np.random.default_rng(seed))]
    for _ in range(101):
        labels = ((unit[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        assert len(set(labels.tolist())) == 5
        centres = np.stack([unit[labels == c].mean(axis=0) for c in range(5)])
    distances = ((unit - centres[labels]) ** 2).sum(axis=1)
    nearest = [int(np.where(labels == c, distances, np.inf).argmin()) for c in range(5)]
    assert representatives(pool, 5, 100, np.random.default_rng(seed)).tolist() == sorted(nearest)


def test_kmeans_with_equal_vectors_leaves_no_cluster_empty() -> None:
    index = IndexSet(np.arange(10), np.arange(10), np.full(10, -1), np.ones((10, 3), dtype=np.float32))
    queries = QuerySet(np.array([99]), np.array([99]), np.array([-1]), np.ones((1, 3), dtype=np.float32))
    for shots in (1, 3, 10):
        assert len(set(KMeansRetriever(KMeansOptions()).retrieve(index, queries, shots, 0)[0].tolist())) == shots


def test_kmeans_is_keyed_by_seed() -> None:
    index, queries = spread()
    first, again, other = (KMeansRetriever(KMeansOptions()).retrieve(index, queries, 5, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_queries_of_make_queries_do_not_leak_into_pools() -> None:
    index = make_index(120)
    queries = make_queries(index, range(0, 120, 8))
    for position, pool in enumerate(pools("dpp", PoolOptions(pool=110), index, queries, 2)):
        assert not np.isin(pool.rows, index.leaking_rows(queries, position)).any()
