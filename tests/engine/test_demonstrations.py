"""No plugin can leak a query's answer or repeat a demonstration unnoticed."""

from __future__ import annotations

import numpy as np
import pytest

from icltool.contracts import IndexSet, QuerySet
from icltool.engine.demonstrations import checked_rows
from icltool.errors import PluginError

INDEX = IndexSet(np.arange(6), np.array([0, 0, 1, 2, 3, 4]), np.array([-1, -1, 7, -1, 7, -1]))
QUERIES = QuerySet(np.array([100, 101]), np.array([0, 50]), np.array([-1, 7]))


def test_good_rows_pass() -> None:
    rows = checked_rows("mine", np.array([[2, 3], [0, 5]], dtype=np.int32), INDEX, QUERIES, 2)
    assert rows.dtype == np.int64
    assert checked_rows("mine", np.zeros((2, 0), dtype=np.int64), INDEX, QUERIES, 0).shape == (2, 0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[2, 3]], "shape"),
        ([[2, 6], [0, 5]], "index set of 6"),
        ([[2, -1], [0, 5]], "row -1"),
        ([[2, 2], [0, 5]], "twice for query 100"),
        ([[1, 3], [0, 5]], "same image"),
        ([[2, 3], [0, 4]], "example 4 for query 101"),
    ],
)
def test_bad_rows_name_the_component(rows: list[list[int]], words: str) -> None:
    with pytest.raises(PluginError, match=words) as caught:
        checked_rows("mine", np.array(rows), INDEX, QUERIES, 2)
    assert "'mine'" in caught.value.message
