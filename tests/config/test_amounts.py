"""Ages and sizes as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from icltool.config.amounts import age_text, parse_age, parse_size, size_text

AGES = {"s": 1, "min": 60, "hours": 3600, "d": 86400, "Days": 86400, "w": 604800, "mo": 2592000, "y": 31536000}
SIZES = {"": 1, "b": 1, "kB": 1e3, "K": 1e3, "MB": 1e6, "gb": 1e9, "TB": 1e12, "KiB": 1024, "GiB": 1024**3}


@given(st.integers(0, 10**6), st.sampled_from(sorted(AGES)), st.sampled_from(["", " ", "  "]))
def test_ages(count: int, unit: str, space: str) -> None:
    assert parse_age(f"{count}{space}{unit}") == count * AGES[unit]


@given(st.decimals(0, 10**6, places=2), st.sampled_from(sorted(SIZES)))
def test_sizes(count: object, unit: str) -> None:
    assert parse_size(f" {count}{unit} ") == float(str(count)) * SIZES[unit]


@given(st.text(max_size=12))
def test_anything_else_is_refused_by_its_name(text: str) -> None:
    for parse in (parse_age, parse_size):
        try:
            message = repr(text) if parse(text) >= 0 else ""
        except ValueError as error:
            message = str(error)
        assert repr(text) in message


@pytest.mark.parametrize(
    "text", ["", "30", "5m", "-3d", "1e3d", "d", "1 d 2 h", "٣d", "nan d", "inf", f"1{'0' * 400}d"]
)
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(ValueError, match=r"age|too large"):
        parse_age(text)


@pytest.mark.parametrize("text", ["", "-1GB", "1 XB", "GB", "1e9", "1GB 2MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (86400, "1 day"), (40 * 86400, "40 days")],
)
def test_ages_for_people(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (1.5e9, "1.5 GB"), (2e15, "2000.0 TB")],
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert size_text(count) == text


@given(st.integers(0, 10**15))
def test_a_size_that_was_printed_reads_back_within_its_rounding(count: int) -> None:
    assert parse_size(size_text(count)) == pytest.approx(count, rel=0.06)
