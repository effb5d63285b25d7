"""Tables in text files: delimiters, encodings, quotes, and what is wrong with one."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.datasets.tables import find_table, read_table
from icltool.errors import DataError

ROWS = [("image", "caption"), ("a.png", 'a "red" dog, running'), ("b.png", "two\nboats")]


def written(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_csv(rows: list[tuple[str, ...]], delimiter: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", ":"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_delimiters_and_encodings_are_found(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = [*ROWS, ("c.png", "ein Café")]
    table = read_table(written(tmp_path, as_csv(rows, delimiter).encode(encoding)))
    assert table.columns == ("image", "caption")
    assert [tuple(values.values()) for _, values in table.rows] == rows[1:]
    assert [line for line, _ in table.rows] == [2, 3, 5]  # the caption of b.png has two lines


def test_tsv_keeps_commas(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "image\tcaption\na,b\tc,d\n", "t.tsv"))
    assert table.rows == [(2, {"image": "a,b", "caption": "c,d"})]


def test_spaces_between_words_are_no_delimiter(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "image,caption\na.png,a big red dog\nb.png,two dogs\n"))
    assert table.columns == ("image", "caption")


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "image,caption\n\na.png,x\n , \nb.png,y\n"))
    assert [line for line, _ in table.rows] == [3, 5]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells, cells).filter(lambda r: any(c.strip() for c in r)), min_size=1, max_size=8))
def test_whatever_csv_writes_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(as_csv([("a", "b", "c"), *rows], ",").encode())
    assert [tuple(values.values()) for _, values in read_table(path).rows] == rows


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"image": "a", "caption": ["x", "y\u2028z"]}, {"image": "b", "label": 3}]
    path = written(tmp_path, "\r\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n\n", "t.jsonl")
    table = read_table(path)
    assert table.columns == ("image", "caption", "label")
    assert [values for _, values in table.rows] == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 fields, but line 1 names 2 columns"),
        ("t.csv", "a,b\n1,2\n1\n", "line 3: 1 fields, but line 1 names 2 columns"),
        ("t.csv", 'a,b\n1,2\n1,"x\ny\n', "line 3: unexpected end of data"),
        ("t.csv", "a,a\n1,2\n", "line 1: column 'a' occurs twice"),
        ("t.csv", "a,b\n", "has no rows"),
        ("t.csv", "", "has no rows"),
        ("t.csv", "a,b\nx,ä\n".encode("latin-1"), "line 2: byte 6 is not UTF-8"),
        ("t.jsonl", '{"a": 1}\n{"a": \n', "line 2, column 7: Expecting value"),
        ("t.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("t.jsonl", "\n", "has no rows"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = written(tmp_path, content, name)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert caught.value.message == f"{path} {message}"
    assert caught.value.hint


def test_the_only_table_is_found_and_a_choice_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no table"):
        find_table(tmp_path, None)
    path = written(tmp_path, "a,b\n1,2\n")
    (tmp_path / "notes.txt").write_text("no table")
    assert find_table(tmp_path, None) == path
    other = written(tmp_path, "{}", "u.jsonl")
    with pytest.raises(DataError, match=r"holds several tables: t\.csv, u\.jsonl"):
        find_table(tmp_path, None)
    assert find_table(tmp_path, "u.jsonl") == find_table(tmp_path, str(other)) == other
    for wrong in ("missing.csv", "notes.txt"):
        with pytest.raises(DataError, match=wrong):
            find_table(tmp_path, wrong)


def test_a_long_line_is_no_riddle(tmp_path: Path) -> None:
    for content in ("[" * 200_000, '{"a":' * 50_000, "a;" * 100_000, '"' * 100_001):
        (tmp_path / "t.csv").write_text(content)
        with pytest.raises(DataError):
            read_table(tmp_path / "t.csv")
