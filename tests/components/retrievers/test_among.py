"""Methods behind another one: the rows that it chose take the place of the index set, or of a pool."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from icltool.testing import make_index, make_queries


@pytest.mark.parametrize("name", ["mmr", "dpp", "kmeans"])
def test_behind_another_method_its_rows_are_the_pool(name: str) -> None:
    """Of the nearest rows by the same embeddings, in any order, that is what the method chooses by itself."""
    index = make_index(120)
    queries = make_queries(index, range(0, 120, 11))
    method = component("retrievers", name, pool=20)
    assert method.pool_size(3) == 20
    nearest = component("retrievers", "i2i").retrieve(index, queries, 20, 0)
    shuffled = np.random.default_rng(1).permuted(nearest, axis=1)
    padded = np.concatenate([shuffled, np.full((len(queries), 3), -1)], axis=1)
    alone = method.retrieve(index, queries, 5, 0)
    for among in (nearest, shuffled, padded):
        np.testing.assert_array_equal(method.retrieve(index, queries, 5, 0, among=among), alone)


@given(st.integers(0, 50), st.sampled_from(["i2i", "t2t", "i2t", "bm25", "random"]), st.integers(1, 6))
def test_methods_behind_others_choose_as_they_would_from_the_rows_alone(seed: int, name: str, shots: int) -> None:
    """The twin: an index set of nothing but the rows that are given."""
    index = make_index(60, dim=8)
    queries = make_queries(index, [3, 30, 59])
    rng = np.random.default_rng(seed)
    method = component("retrievers", name, pool=9)
    assert method.pool_size(shots) == 9
    for position in range(3):
        query = queries.take(np.array([position]))
        allowed = np.setdiff1d(np.arange(60), index.leaking_rows(queries, position))
        rows = np.sort(rng.permutation(allowed)[:9])
        result = method.retrieve(
            index, query, shots, 0, among=rng.permuted(rows)[None] if name != "random" else rows[None]
        )
        if name == "bm25":  # weights of words are of the whole index set
            whole = component("retrievers", name).retrieve(index, query, len(allowed), 0)[0]
            expected = [row for row in whole.tolist() if row in rows][:shots]
        else:
            expected = rows[component("retrievers", name).retrieve(index.take(rows), query, shots, 0)[0]].tolist()
        assert result[0].tolist() == expected


def test_what_has_no_effect_or_cannot_be_had_is_refused() -> None:
    index = make_index(60)
    queries = make_queries(index, [3])
    for name in ("i2i", "bm25", "random"):
        with pytest.raises(ConfigError, match="pool=9 has no effect"):
            component("retrievers", name, pool=9).retrieve(index, queries, 2, 0)
        with pytest.raises(DataError, match="2 rows are needed, but the first method chose 1"):
            component("retrievers", name).retrieve(index, queries, 2, 0, among=np.array([[50, -1]]))
    with pytest.raises(ConfigError, match="fixed gives one set to all queries"):
        component("retrievers", "random", fixed=True).retrieve(index, queries, 2, 0, among=np.array([[50, 40]]))
