"""Cells of tables, ids and labels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from icltool.components.datasets.columns import Columns
from icltool.components.datasets.labelled_rows import Row, Rows, label_names, label_of, normalised, whole_or_code
from icltool.contracts import group_code
from icltool.errors import DataError


def rows(*values: dict[str, Any], **columns: str) -> Rows:
    by_role = {role: (column,) for role, column in columns.items()}
    return Rows("t.csv", "line", Columns(by_role), [Row(i + 2, i, v) for i, v in enumerate(values)])


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("a cat", ("a cat",)),
        ("", ()),
        (None, ()),
        (["a", "", None, "b"], ("a", "", "", "b")),
        ('["a", "b"]', ("a", "b")),
        ("[1, 2]", ("[1, 2]",)),
        ("[a cat]", ("[a cat]",)),
        (3, ("3",)),
        (3.0, ("3",)),
        (2.5, ("2.5",)),
        ({"raw": "a", "tokens": ["a"]}, ("a",)),
        ([{"answer": "a", "answer_id": 1}, {"answer": "", "answer_id": 2}], ("a", "")),
        ({"answer": ["a", "b"], "answer_id": [1, 2]}, ("a", "b")),
    ],
)
def test_texts_of_a_cell(cell: Any, texts: tuple[str, ...]) -> None:
    of_one = rows({"c": cell}, caption="c")
    assert of_one.texts(of_one.rows[0], "caption") == texts


def test_cells_without_texts_are_refused_with_their_line() -> None:
    for cell, what in (({"bytes": b"x"}, "a record"), (b"x", "bytes"), ([{"a": 1}], "a record")):
        of_one = rows({"c": cell}, caption="c")
        with pytest.raises(DataError, match=f"t.csv line 2: column 'c' holds {what}, not text"):
            of_one.texts(of_one.rows[0], "caption")
    several = rows({"q": ["a", "b"]}, question="q")
    with pytest.raises(DataError, match="holds 2 texts, but question takes one"):
        several.text(several.rows[0], "question")


@given(st.integers(-(10**17), 10**17))
def test_whole_numbers_stay_and_other_texts_get_codes(number: int) -> None:
    assert whole_or_code(str(number)) == number
    for other in (f"0{abs(number)}", f"{number}.0", f"q{number}", f"+{number}"):
        assert whole_or_code(other) == group_code(other)


def test_label_names() -> None:
    numbered = [rows(*({"l": str(i)} for i in (10, 9, 2)), label="l"), rows({"l": "1"}, {"l": ""}, label="l")]
    assert label_names(numbered, ()) == ("1", "2", "9", "10")
    binary = [rows({"l": 1}, {"l": 0}, {"l": -1}, label="l")]
    assert label_names(binary, ("no", "yes")) == ("no", "yes")
    assert binary[0].class_names == ("no", "yes")
    written = [rows({"l": "yes"}, {"l": "no"}, label="l")]
    assert label_names(written, ("yes", "no")) == ("yes", "no")
    assert written[0].class_names == ()


def test_chosen_names_of_classes_that_the_source_names() -> None:
    for chosen, choices, label in (
        ((), ("neg", "pos"), "pos"),
        (("pos", "neg"), ("pos", "neg"), "pos"),
        (("bad", "good"), ("bad", "good"), "good"),
    ):
        split = rows({"l": 1}, label="l")
        split.class_names = ("neg", "pos")
        assert label_names([split], chosen) == choices
        assert label_of(split, split.rows[0]) == label
    split.class_names = ("neg", "pos")
    with pytest.raises(DataError, match="3 choices for the 2 classes neg, pos"):
        label_names([split], ("a", "b", "c"))


def test_normalised_texts() -> None:
    assert normalised(" A good, film! ") == normalised("a GOOD film") == "a good film"
    assert normalised("?!") == "?!"
