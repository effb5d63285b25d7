"""Annotation files that are cut or changed anywhere: always a DataError of one line that names the file."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.components.datasets.official import Caption, Image, entries, expect_kind, few, one_line, read_annotations
from icltool.errors import DataError
from tests.components.datasets.builders import CAPTIONS, answers_entry, captions_content

TEXT = json.dumps(captions_content(CAPTIONS["train"]))
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path) -> tuple[list[Image], list[Caption]]:
    result = read_annotations(path, "get it again")
    expect_kind(path, result, "captions", "get it again")
    return entries(path, result, "images", Image), entries(path, result, "annotations", Caption)


def fault_of(path: Path) -> tuple[str | None, tuple[list[Image], list[Caption]]]:
    """(the message of the DataError, or None; what was read). Any other exception fails the test."""
    try:
        return None, read(path)
    except DataError as error:
        return error.message, ([], [])


@SHARED
@given(st.integers(0, len(TEXT) - 1))
def test_cut_anywhere(tmp_path: Path, length: int) -> None:
    path = tmp_path / "captions.json"
    path.write_text(TEXT[:length])
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.message.startswith(str(path))
    assert "line 1, column" in caught.value.message
    assert "\n" not in caught.value.message


@SHARED
@given(st.integers(0, len(TEXT) - 1), st.sampled_from(string.printable))
def test_one_character_changed(tmp_path: Path, position: int, character: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(TEXT[:position] + character + TEXT[position + 1 :])
    fault, (images, captions) = fault_of(path)
    assert fault is None or fault.startswith(str(path))
    assert all(isinstance(image.id, int) for image in images)
    assert all(isinstance(caption.caption, str) for caption in captions)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["images", "annotations", "id", "image_id", "caption", "file_name", "answers",
                                           "question_id", "answer", "answer_id", "questions", "question"]), inner)
    ),
    max_leaves=12,
)  # fmt: skip


@SHARED
@given(st.fixed_dictionaries({"images": JSON, "annotations": JSON}) | JSON)
def test_any_json_is_read_or_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    fault, _ = fault_of(path)
    assert fault is None or (fault.startswith(str(path)) and "\n" not in fault)


def test_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert len(read(path)[0]) == 3


def test_answers_become_one_small_record(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"annotations": [answers_entry(7, 3, ["yes"] * 9 + ["no"], "yes")] * 2}))
    first, second = read_annotations(path, "")["annotations"]
    assert first.answers == ("yes",) * 9 + ("no",)
    assert all(one is other for one, other in zip(first.answers, second.answers, strict=True))  # texts are shared


def test_few() -> None:
    assert few([1, 2, 3]) == "1, 2, 3"
    assert few(list(range(2003))) == "0, 1, 2 and 2,000 more"


@given(st.text())
def test_one_line_has_neither_breaks_nor_repeated_blanks(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert "  " not in line
    assert line == line.strip()
