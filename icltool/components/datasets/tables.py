"""Tables in text files: CSV with any common delimiter, TSV and JSON Lines, with the line on which each row begins."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from icltool.components.datasets.official import few
from icltool.contracts import read_whole
from icltool.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_DELIMITERS = (",", "\t", ";", "|", ":")
_TRIED = 50  # rows that must agree on a delimiter
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Table:
    """A table's columns, and its rows: (line on which the row begins, values by column). Values from CSV are strings."""

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[tuple[int, Mapping[str, object]]]


def find_table(root: Path, file: str | None) -> Path:
    """The table `file` (relative to `root`, or absolute), or the only table in `root`.

    Raises DataError if there is none, or if `root` holds several.
    """
    endings = ", ".join(SUFFIXES)
    if file is not None:
        path = root / Path(file).expanduser()
        if not path.is_file():
            raise DataError(f"there is no table {path}", "option table= is relative to --root")
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"unsupported table format: {path}", f"convert it to one of {endings}")
        return path
    tables = sorted(p for p in root.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and p.name[0] != ".")
    if not tables:
        raise DataError(
            f"there is no table ({endings}) in {root}", "put one there, or name it with --option table=FILE"
        )
    if len(tables) > 1:
        names = few([p.name for p in tables])
        raise DataError(f"{root} holds several tables: {names}", f"choose one: --option table={tables[0].name}")
    return tables[0]


def read_table(path: Path) -> Table:
    """Reads a table. Raises DataError, which names file and line, if it is malformed, and if it has no rows.

    Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark. Quoted fields of CSV may have line breaks.
    """
    text = _decoded(path)
    table = _json_lines(path, text) if path.suffix.lower() in (".jsonl", ".ndjson") else _delimited(path, text)
    if not table.rows:
        raise DataError(f"{path} has no rows", "the first line must name the columns; rows follow")
    return table


def _decoded(path: Path) -> str:
    try:
        content = read_whole(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} line {line}: byte {error.start} is not {encoding.upper()}", "save the table as UTF-8"
        ) from error


def _encoding(content: bytes) -> str:
    """The encoding by the byte order mark; without one, a zero byte beside the first character means UTF-16."""
    marked = next((name for mark, name in _BOMS if content.startswith(mark)), None)
    if marked is not None:
        return marked
    if content[1:2] == b"\x00":
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\x00" else "utf-8"


def _delimited(path: Path, text: str) -> Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    records = _records(path, text, delimiter)
    _, header = next(records, (1, []))
    columns = [name.strip() for name in header]
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated:
        raise DataError(f"{path} line 1: column {repeated[0]!r} occurs twice", "give each column its own name")
    rows = []
    for line, fields in records:
        if len(fields) != len(columns):
            raise DataError(
                f"{path} line {line}: {len(fields)} fields, but line 1 names {len(columns)} columns",
                f'put fields that hold {delimiter!r} or line breaks in "double quotes"',
            )
        rows.append((line, dict(zip(columns, fields, strict=True))))
    return Table(path, tuple(columns), rows)


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of each record; blank records are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path} line {line}: {error}", "check the quotes of this row") from error
        if fields is None:
            return
        if any(field.strip() for field in fields):
            yield line, fields
        line = reader.line_num + 1


#: Characters of the header passed to csv.Sniffer, whose patterns are very slow on long lines.
_SNIFFED = 500


def _delimiter(text: str) -> str:
    """The delimiter that gives the first rows the same number of fields, at least two; else csv.Sniffer's guess."""
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            widths = {len(fields) for fields in islice(reader, _TRIED) if fields}
        except csv.Error:
            continue
        if len(widths) == 1 and widths.pop() > 1:
            return delimiter
    try:
        return csv.Sniffer().sniff(text.split("\n", 1)[0][:_SNIFFED], "".join(_DELIMITERS) + " ").delimiter
    except csv.Error:
        return ","


def _json_lines(path: Path, text: str) -> Table:
    columns: dict[str, None] = {}
    rows = []
    for line, line_text in enumerate(text.split("\n"), start=1):
        if not line_text.strip():
            continue
        try:
            row = json.loads(line_text)
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{path} line {line}{column}: {reason}", "each line must hold one JSON object") from error
        if not isinstance(row, dict):
            raise DataError(f"{path} line {line} is not a JSON object", 'each line must read {"image": ..., ...}')
        columns |= dict.fromkeys(row)
        rows.append((line, row))
    return Table(path, tuple(columns), rows)
