"""Examples without an image, in methods that compare images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from icltool.contracts import IndexSet, QuerySet
from icltool.errors import DataError
from icltool.plugin.manager import load_registry
from icltool.testing import make_index, make_queries

ROWS = np.arange(0, 90, 4)


def without_images(arrays: IndexSet | QuerySet, rows: np.ndarray) -> np.ndarray:
    assert arrays.image is not None
    image = arrays.image.copy()
    image[rows] = 0
    return image


def sets() -> tuple[IndexSet, QuerySet]:
    index = make_index(90)
    queries = make_queries(index, range(0, 90, 9))
    return replace(index, image=without_images(index, ROWS)), replace(
        queries, image=without_images(queries, np.array([2, 5]))
    )


@pytest.mark.parametrize("name", ["i2i", "mmr", "dpp", "kmeans", "votek"])
def test_they_are_no_demonstrations_and_such_queries_get_random_ones(name: str) -> None:
    index, queries = sets()
    method = load_registry().create("retrievers", name)
    rows = method.retrieve(index, queries, 3, 0)
    drawn = load_registry().create("retrievers", "random").retrieve(index, queries, 3, 0)
    seeing = np.setdiff1d(np.arange(len(queries)), [2, 5])
    assert not np.isin(rows[seeing], ROWS).any()
    assert (rows[[2, 5]] == drawn[[2, 5]]).all()
    others = np.setdiff1d(np.arange(90), ROWS)
    twin = method.retrieve(index.take(others), queries.take(seeing), 3, 0)
    assert (rows[seeing] == others[twin]).all(), "the choice is that from an index set without them"


def test_text_is_compared_as_before() -> None:
    index, queries = sets()
    whole = make_index(90)
    method = load_registry().create("retrievers", "t2t")
    assert (method.retrieve(index, queries, 3, 0) == method.retrieve(whole, queries, 3, 0)).all()


def test_behind_another_method() -> None:
    index, queries = sets()
    among = np.array([np.setdiff1d(np.arange(90), index.leaking_rows(queries, q))[:12] for q in range(len(queries))])
    method = load_registry().create("retrievers", "i2i")
    rows = method.retrieve(index, queries, 3, 0, among=among)
    assert not np.isin(np.delete(rows, [2, 5], axis=0), ROWS).any()
    assert all(np.isin(own, given).all() for own, given in zip(rows, among, strict=True))
    rows = method.retrieve(index, queries, 12, 0, among=among)
    assert all(sorted(own) == sorted(given) for own, given in zip(rows, among, strict=True)), "all where all are needed"


def test_too_few_with_an_image() -> None:
    index, queries = sets()
    with pytest.raises(DataError, match="of the index set's 90 have an image and do not leak its answer"):
        load_registry().create("retrievers", "i2i").retrieve(index, queries, 80, 0)
