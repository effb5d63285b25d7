"""The built-in retrievers but the learned one."""

from __future__ import annotations

import numpy as np
import pytest

from icltool.components.retrievers.random import RandomOptions, RandomRetriever
from icltool.components.retrievers.zero_shot import ZeroShot
from icltool.contracts import IndexSet
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component, load_registry
from icltool.testing import check_retriever, make_index, make_queries


@pytest.mark.parametrize("name", ["random", "i2i", "i2t", "t2t", "t2i"])
def test_a_built_in_retriever_conforms(name: str) -> None:
    check_retriever(lambda: load_registry().create("retrievers", name))


def test_zero_shot_conforms_and_gives_nothing() -> None:
    check_retriever(ZeroShot, shots=(0,))
    index = make_index(30)
    with pytest.raises(ConfigError, match="gives no demonstrations, but --shots asks for 4"):
        ZeroShot().retrieve(index, make_queries(index, [0]), 4, 0)


@pytest.mark.parametrize(
    ("name", "query", "demonstration"),
    [("i2i", "image", "image"), ("i2t", "image", "text"), ("t2t", "text", "text"), ("t2i", "text", "image")],
)
def test_similarity_compares_the_right_embeddings(name: str, query: str, demonstration: str) -> None:
    index = make_index(90)
    queries = make_queries(index, range(0, 90, 9))
    retriever = load_registry().create("retrievers", name)
    assert retriever.needs == {query, demonstration, "among"}
    rows = retriever.retrieve(index, queries, 6, 0)
    base, query_vectors = (v.astype(np.float64) for v in (getattr(index, demonstration), getattr(queries, query)))
    scores = (query_vectors / np.linalg.norm(query_vectors, axis=1)[:, None]) @ (
        base / np.linalg.norm(base, axis=1)[:, None]
    ).T
    for position in range(len(queries)):
        leaking = index.leaking_rows(queries, position)
        allowed = np.setdiff1d(np.arange(90), leaking)
        expected = sorted(allowed.tolist(), key=lambda row: (-round(scores[position, row], 6), row))[:6]
        assert rows[position].tolist() == expected


def test_similarity_refuses_an_embedding_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"query must be .*'audio'"):
        component("retrievers", "i2i", query="audio")


def test_random_is_keyed_by_query_and_seed() -> None:
    index = make_index(240)
    queries = make_queries(index, range(20))
    first, second = (RandomRetriever(RandomOptions()).retrieve(index, queries, 4, seed) for seed in (0, 1))
    assert (first != second).any()
    assert len({tuple(rows) for rows in first.tolist()}) > 15


def test_fixed_gives_one_set_that_leaks_for_no_query() -> None:
    index = make_index(240)
    queries = make_queries(index, range(0, 240, 10))
    rows = RandomRetriever(RandomOptions(fixed=True)).retrieve(index, queries, 5, 3)
    assert len({tuple(r) for r in rows.tolist()}) == 1
    for position in range(len(queries)):
        assert not np.isin(rows[position], index.leaking_rows(queries, position)).any()
    longer = RandomRetriever(RandomOptions(fixed=True)).retrieve(index, queries, 9, 3)
    assert (longer[:, :5] == rows).all()
    assert (RandomRetriever(RandomOptions(fixed=True)).retrieve(index, queries, 5, 4) != rows).any()


def test_fixed_says_so_when_no_row_suits_all_queries() -> None:
    index = IndexSet(np.arange(6), np.arange(6), np.full(6, -1))
    with pytest.raises(DataError, match="only 1 of the index set's 6 rows leak no query's answer"):
        RandomRetriever(RandomOptions(fixed=True)).retrieve(index, make_queries(index, range(5)), 2, 0)
