"""As many demonstrations of each class, against a plain twin."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from icltool.components.retrievers.balanced import BalancedOptions, BalancedRetriever
from icltool.contracts import IndexSet
from icltool.errors import ConfigError
from icltool.plugin.manager import component, load_registry
from icltool.testing import check_retriever, make_index, make_queries

CLASSES = len(set(make_index().labels))


def balanced(**options: Any) -> BalancedRetriever:
    return BalancedRetriever(BalancedOptions(**options))


@pytest.mark.parametrize(
    ("options", "shots"),
    [({}, CLASSES), ({"per_class": 2, "nearest": True}, 2 * CLASSES), ({"fixed": True}, CLASSES)],
)
def test_conforms(options: dict[str, Any], shots: int) -> None:
    check_retriever(lambda: load_registry().create("retrievers", "balanced", **options), shots=(shots,))


def test_each_class_is_there_equally_often_in_a_drawn_order() -> None:
    index = make_index()
    queries = make_queries(index, range(30))
    method = balanced(per_class=3)
    assert method.shots_for(index.labels) == 3 * CLASSES
    rows = method.retrieve(index, queries, 3 * CLASSES, 0)
    labels = np.array(index.labels)[rows]
    assert all(Counter(own.tolist()) == dict.fromkeys(index.labels, 3) for own in labels)
    assert len({tuple(own) for own in labels.tolist()}) == 30, "the order of classes is drawn for each query"
    assert (method.retrieve(index, queries, 3 * CLASSES, 1) != rows).any()


def test_the_nearest_of_each_class() -> None:
    index = make_index()
    queries = make_queries(index, range(0, 90, 9))
    rows = balanced(per_class=2, nearest=True).retrieve(index, queries, 2 * CLASSES, 0)
    assert index.image is not None
    assert queries.image is not None
    units = index.image.astype(np.float64) / np.linalg.norm(index.image.astype(np.float64), axis=1)[:, None]
    for position in range(len(queries)):
        allowed = np.setdiff1d(np.arange(len(index)), index.leaking_rows(queries, position))
        scores = units @ queries.image[position].astype(np.float64) / np.linalg.norm(queries.image[position])
        expected = []
        for label in set(index.labels):
            of_class = [row for row in allowed.tolist() if index.labels[row] == label]
            expected += sorted(of_class, key=lambda row: (-round(scores[row], 6), row))[:2]
        assert sorted(rows[position].tolist()) == sorted(expected)


def test_one_set_for_all() -> None:
    index = make_index()
    queries = make_queries(index, range(12))
    rows = balanced(fixed=True).retrieve(index, queries, CLASSES, 0)
    assert (rows == rows[0]).all()
    assert Counter(index.labels[row] for row in rows[0]) == dict.fromkeys(index.labels, 1)


def small() -> IndexSet:
    """Three examples of class a, one of class b."""
    return replace(make_index(4), labels=("a", "a", "b", "a"), image_ids=np.arange(4), groups=np.full(4, -1))


def test_a_class_with_too_few_gives_what_it_has() -> None:
    index, method = small(), balanced(per_class=2)
    assert method.shots_for(index.labels) == 3
    assert method.remarks_on(index.labels) == ["balanced: 1 class has fewer than 2 examples"]
    queries = replace(make_queries(index, [0, 1]), image_ids=np.array([10, 11]))
    rows = method.retrieve(index, queries, 3, 0)
    assert all(Counter(index.labels[row] for row in own) == {"a": 2, "b": 1} for own in rows)


def test_a_leak_is_made_up_for_by_another_class() -> None:
    index = small()
    queries = replace(make_queries(index, [0]), image_ids=np.array([2]))
    (rows,) = balanced().retrieve(index, queries, 2, 0)
    assert [index.labels[row] for row in rows] == ["a", "a"]


def test_what_it_refuses() -> None:
    index = small()
    message = "balanced takes 2 shots, 1 of each of 2 classes, got 4"
    with pytest.raises(ConfigError, match=message):
        balanced().retrieve(index, make_queries(index, [0]), 4, 0)
    with pytest.raises(ConfigError, match="fixed gives all queries one set"):
        component("retrievers", "balanced", fixed=True, nearest=True)
