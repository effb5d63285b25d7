"""Reading JSON in pieces, against `json.loads` of the whole text: the same values, and the same faults at the same place."""

from __future__ import annotations

import json
import math
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from icltool.components.datasets.json_stream import read_json, read_members
from icltool.errors import DataError

SHARED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
BLOCKS = st.integers(1, 40)


def whole(key: str, entry: Any) -> Any:
    return entry


def read(path: Path, text: str, block: int) -> Any:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return read_json(path, "get it again", whole, block)


@SHARED
@given(VALUES, BLOCKS, st.sampled_from([None, 1]), st.booleans())
@example(-math.inf, 1, None, True)
@example({"n": [1234567890, 1.5e300, -0.0, "\U0001f600é"]}, 1, None, False)
def test_any_value_in_blocks_of_any_size(
    tmp_path: Path, value: Any, block: int, indent: int | None, plain: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    assert read(tmp_path / "x.json", text, block) == json.loads(text)


TEXT = json.dumps(
    {"info": {"a": [1, 2]}, "images": [{"id": 9, "s": 'qu"ote\n'}, [], -1.5e3, True], "n": None}, indent=1
)


@SHARED
@given(st.integers(0, len(TEXT)), st.integers(0, 3), st.sampled_from(["", *'{}[],:"\\x0 \n']), BLOCKS)
def test_the_same_faults_as_in_one_piece(tmp_path: Path, at: int, removed: int, added: str, block: int) -> None:
    text = TEXT[:at] + added + TEXT[at + removed :]
    expected = fault = None
    try:
        expected = json.loads(text)
    except json.JSONDecodeError as error:
        fault = f"at line {error.lineno}, column {error.colno}: {error.msg}"
    if fault is None:
        assert read(tmp_path / "x.json", text, block) == expected
        return
    with pytest.raises(DataError) as caught:
        read(tmp_path / "x.json", text, block)
    assert caught.value.hint == "get it again"
    if sys.version_info < (3, 13):  # later ones have messages of their own for a comma before a bracket
        assert fault in caught.value.message


@SHARED
@given(st.integers(0, len(TEXT) - 2), BLOCKS)
def test_cut_anywhere(tmp_path: Path, length: int, block: int) -> None:
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "x.json")) + r" is .*line \d+, column \d+"):
        read(tmp_path / "x.json", TEXT[:length], block)


@SHARED
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=5), BLOCKS)
def test_members_one_at_a_time(tmp_path: Path, value: dict[str, Any], block: int) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value, indent=1))
    assert list(read_members(path, "", block)) == list(value.items())


def test_members_are_those_before_a_fault_and_may_come_repeatedly(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1, "a": [2],\n "b": oh}')
    members = read_members(path, "get it again")
    assert [next(members), next(members)] == [("a", 1), ("a", [2])]
    with pytest.raises(DataError, match="line 2, column 7: Expecting value"):
        next(members)
    for text, message in (('{"a": 1} 2', "Extra data"), ("[1]", "holds no JSON object"), ("", "holds no JSON object")):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            list(read_members(path, "get it again"))


def test_entries_become_what_convert_makes_of_them(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, [2], {"b": [3]}], "c": {"d": [4]}, "e": 5, "f": []}')
    assert read_json(path, "", lambda key, entry: (key, entry)) == {
        "a": [("a", 1), ("a", [2]), ("a", {"b": [3]})],
        "c": {"d": [4]},
        "e": 5,
        "f": [],
    }
    path.write_text("[6, [7]]")
    assert read_json(path, "", lambda key, entry: (key, entry)) == [("", 6), ("", [7])]


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_no_text(tmp_path: Path, block: int, start: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(start + '["é", "'.encode() + b'\xff"]')
    with pytest.raises(DataError) as caught:
        read_json(path, "", whole, block)
    assert caught.value.message == f"{path} is not JSON: byte {len(start) + 8} is not UTF-8"


def test_numbers_of_thousands_of_digits_and_deep_nests(tmp_path: Path) -> None:
    for text in ("[" + "9" * 5000 + "]", '{"a": ' + "[" * 100_000):
        with pytest.raises(DataError, match="not well-formed JSON"):
            read(tmp_path / "x.json", text, 2**20)


def test_a_member_of_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/x.json", '{"a": [1]}')
    assert read_json(tmp_path / "a.zip" / "deep" / "x.json", "", whole) == {"a": [1]}
    with pytest.raises(DataError, match=r"y\.json does not exist"):
        read_json(tmp_path / "a.zip" / "deep" / "y.json", "", whole)
