"""The choice of the best scores must not depend on rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings, strategies as st

from icltool.engine.ranking import best

TOLERANCE = 1e-3


def plain_best(exact: np.ndarray, count: int) -> list[int]:
    """The twin: sort everything by exact score, equal ones by position."""
    return sorted(range(len(exact)), key=lambda i: (-exact[i], i))[:count]


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(st.integers(-6, 6), min_size=1, max_size=40),
    noise=st.randoms(use_true_random=False),
    count=st.integers(1, 8),
)
def test_rounding_never_changes_the_choice(steps: list[int], noise: object, count: int) -> None:
    exact = np.array(steps) * TOLERANCE * 0.7  # many ties and near-ties
    rounded = exact + np.array([noise.uniform(-1, 1) for _ in steps]) * TOLERANCE  # type: ignore[attr-defined]
    assert best(rounded, count, TOLERANCE, lambda p: exact[list(p)]) == plain_best(exact, count)


def test_only_contenders_are_settled() -> None:
    calls: list[int] = []

    def settle(positions: Sequence[int]) -> np.ndarray:
        calls.extend(positions)
        return np.array([0.0, 1.0])

    scores = np.array([5.0, 1.0, 3.0, 1.0 + TOLERANCE, 0.0])
    assert best(scores, 3, TOLERANCE, settle) == [0, 2, 1]
    assert sorted(calls) == [1, 3]


def test_clear_scores_settle_nothing() -> None:
    def settle(positions: Sequence[int]) -> np.ndarray:
        raise AssertionError(f"asked for {positions}")

    assert best(np.array([3.0, 9.0, 6.0]), 2, TOLERANCE, settle) == [1, 2]


def test_without_tolerance_equal_scores_go_by_position() -> None:
    assert best(np.array([1.0, 2.0, 2.0, 2.0]), 2, 0.0, lambda p: np.array([])) == [1, 2]
    assert best(np.array([1.0]), 5, 0.0, lambda p: np.array([])) == [0]
