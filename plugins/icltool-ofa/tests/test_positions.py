"""Relative positions against the definitions, one pair at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, strategies as st
from icltool_ofa.positions import (
    MAX_DISTANCE,
    image_buckets,
    image_distances,
    image_positions,
    token_buckets,
    token_distances,
)


@pytest.mark.parametrize("size", [16, 256])
def test_near_distances_have_a_bucket_each_and_far_ones_share(size: int) -> None:
    buckets, middle = token_buckets(size).tolist(), size // 2
    assert len(buckets) == 2 * MAX_DISTANCE - 1
    assert (buckets[0], buckets[-1]) == (0, 2 * size - 2)
    for distance in range(1 - MAX_DISTANCE, MAX_DISTANCE):
        bucket = buckets[distance + MAX_DISTANCE - 1] - (size - 1)
        if abs(distance) <= middle:
            assert bucket == distance
        else:
            exact = math.log(abs(distance) / middle) / math.log((MAX_DISTANCE - 1) / middle) * (middle - 1)
            assert math.copysign(1, bucket) == math.copysign(1, distance)
            assert -1e-4 <= abs(bucket) - middle - exact <= 1 + 1e-4


@given(st.integers(1, 20), st.integers(0, 20))
def test_the_last_queries_are_the_last_rows(queries: int, before: int) -> None:
    buckets = token_buckets(16)
    keys = before + queries
    assert torch.equal(token_distances(buckets, queries, keys), token_distances(buckets, keys, keys)[before:])


@given(st.integers(1, 5), st.integers(1, 5), st.integers(5, 9))
def test_image_distances_count_rows_and_columns(rows: int, columns: int, size: int) -> None:
    actual = image_distances(rows, columns, size, torch.device("cpu"))
    places = [(row, column) for row in range(rows) for column in range(columns)]
    assert image_positions(rows, columns, size, torch.device("cpu")).tolist() == [r * size + c + 1 for r, c in places]
    for i, (row, column) in enumerate(places):
        for j, (row_2, column_2) in enumerate(places):
            assert actual[i, j] == (row - row_2 + size - 1) * (2 * size - 1) + column - column_2 + size - 1
    assert actual.max() < image_buckets(size) - 3
