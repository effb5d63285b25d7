"""ANLS by hand, and its distance by properties."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from icltool.components.metrics.anls import Anls, distance

TEXT = st.text("ab ", max_size=8)


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("kitten", ("sitting",), 1 - 3 / 7),
        ("Coca  Cola", ("coca cola",), 1.0),
        ("pepsi", ("coca cola", "pepsy"), 1 - 1 / 5),
        ("ab", ("cb",), 0.0),  # half of the characters differ: the threshold
        ("abc", ("cbc",), 1 - 1 / 3),
        ("", ("",), 1.0),
        ("", ("stop",), 0.0),
        ("stop", (), 0.0),
    ],
)
def test_figures_by_hand(answer: str, references: tuple[str, ...], expected: float) -> None:
    assert Anls().score([answer], [references]).tolist() == [pytest.approx(expected, abs=1e-12)]


def plain_distance(first: str, second: str) -> int:
    if not first or not second:
        return len(first) + len(second)
    if first[0] == second[0]:
        return plain_distance(first[1:], second[1:])
    rests = ((first[1:], second), (first, second[1:]), (first[1:], second[1:]))
    return 1 + min(plain_distance(*rest) for rest in rests)


@given(st.text("ab", max_size=5), st.text("ab", max_size=5))
def test_the_distance_is_that_of_its_definition(first: str, second: str) -> None:
    assert distance(first, second) == plain_distance(first, second)


@given(TEXT, TEXT, TEXT)
def test_the_distance_is_a_metric(first: str, second: str, third: str) -> None:
    assert distance(first, second) == distance(second, first)
    assert (distance(first, second) == 0) == (first == second)
    assert distance(first, third) <= distance(first, second) + distance(second, third)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 predictions, 2 lists"):
        Anls().score(["a"], [("a",), ("b",)])
