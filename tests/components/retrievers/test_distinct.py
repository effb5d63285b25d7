"""Which vectors are equal: exactly, whatever their hashes say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from icltool.components.retrievers import distinct
from icltool.components.retrievers.distinct import distinct_rows
from icltool.contracts import FloatArray


def by_dictionary(vectors: FloatArray) -> tuple[list[int], list[int]]:
    known: dict[tuple[float, ...], int] = {}
    codes = [known.setdefault(tuple((row + 0.0).tolist()), len(known)) for row in vectors]
    return [codes.index(code) for code in range(len(known))], codes


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 5))
def test_equals_a_dictionary(seed: int, total: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, (total, dim)).astype(np.float32)
    vectors[rng.random(vectors.shape) < 0.2] = np.float32(-0.0)
    first, codes = distinct_rows(vectors)
    assert (first.tolist(), codes.tolist()) == by_dictionary(vectors)


def test_signs_and_places_are_told_apart() -> None:
    vectors = np.array([[1, 1, 2, 3], [-1, -1, 2, 3], [1, 1, 3, 2], [3, 2, 1, 1], [1, 1, 2, 3]], dtype=np.float32)
    first, codes = distinct_rows(vectors)
    assert first.tolist() == [0, 1, 2, 3]
    assert codes.tolist() == [0, 1, 2, 3, 0]


def test_rows_of_one_hash_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hash that says nothing, equal codes still mean equal vectors."""
    monkeypatch.setattr(distinct, "_hashes", lambda block: np.zeros(len(block), dtype=np.uint64))
    vectors = np.array([[1.0], [2.0], [1.0], [2.0]], dtype=np.float32)
    first, codes = distinct_rows(vectors)
    assert first.tolist() == [0, 1, 3]
    assert codes.tolist() == [0, 1, 0, 2]
