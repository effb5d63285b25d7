"""Tables in text files: CSV with any common delimiter, TSV, JSON Lines and JSON, with the line on which each row begins."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from icltool.components.datasets.official import few
from icltool.contracts import read_whole
from icltool.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
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
    """The table `file` (relative to `root`, or absolute), or the only table in `root`. A .json file, which may be anything,
    counts only if there is no other table.

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
    tables = [path for path in tables if path.suffix.lower() != ".json"] or tables
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
    delimited = path.suffix.lower() in (".csv", ".tsv")
    table = _delimited(path, text) if delimited else _json(path, text)
    if not table.rows:
        hint = "the first line must name the columns; rows follow" if delimited else "put one JSON object on each line"
        raise DataError(f"{path} has no rows", hint)
    return table


def joined(table: Table, further: Table, key: str) -> Table:
    """The table with the columns of `further`, from its row with the same value of the column `key`; rows without one stay as
    they are, and equal columns keep the values of `table`. Raises DataError if no row has one."""
    rows_by_key = {str(values[key]): values for _, values in further.rows if values.get(key) is not None}
    rows = [(line, {**rows_by_key.get(str(values.get(key)), {}), **values}) for line, values in table.rows]
    if not any(str(values.get(key)) in rows_by_key for _, values in table.rows):
        raise DataError(
            f"no row of {further.path} has the {key} of a row of {table.path}",
            f"rows are joined by the column {key!r}; --option id=COLUMN names another",
        )
    return Table(table.path, tuple(dict.fromkeys((*table.columns, *further.columns))), rows)


def with_column(table: Table, pattern: str) -> Table:
    """The table with a column named `pattern`, such as "images/{image_id}.jpg", which holds it filled in with each row's other
    columns ("" where one of these is empty). Raises DataError if there is no such column."""
    names = re.findall(r"\{([^{}]*)\}", pattern)
    missing = next((name for name in names if name not in table.columns), None)
    if missing is not None or not names:
        raise DataError(
            f"{table.path} has no column {missing!r} for {pattern}",
            f"its columns: {', '.join(map(repr, table.columns))}",
        )

    def filled(values: Mapping[str, object]) -> str:
        if any(values.get(name) in (None, "") for name in names):
            return ""
        return re.sub(r"\{([^{}]*)\}", lambda match: str(values[match[1]]), pattern)

    rows = [(line, {**values, pattern: filled(values)}) for line, values in table.rows]
    return Table(table.path, (*table.columns, pattern), rows)


def with_label(table: Table) -> Table:
    """The table with a column "label" in place of the columns that hold nothing but 0 and 1: the name of the one that is 1.
    Raises DataError for a row in which none or several are 1, and for fewer than two such columns."""
    kinds = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": 0, "None": 0}
    classes = [c for c in table.columns if all(str(values.get(c)) in kinds for _, values in table.rows)]
    if len(classes) < 2:
        raise DataError(f"{table.path} has no columns of 0 and 1", "leave out --option onehot=true")
    rows: list[tuple[int, Mapping[str, object]]] = []
    for line, values in table.rows:
        names = [name for name in classes if kinds[str(values.get(name))]]
        if len(names) != 1:
            raise DataError(
                f"{table.path} line {line}: {len(names) or 'none'} of the columns of classes is 1, but one must be",
                f"columns of classes: {few(classes)}",
            )
        others = {column: value for column, value in values.items() if column not in classes}
        rows.append((line, {**others, "label": names[0]}))
    return Table(table.path, (*(c for c in table.columns if c not in classes), "label"), rows)


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


def _json(path: Path, text: str) -> Table:
    """JSON Lines; one list of objects; or one object, such as {"data": [...]}, with one list of objects in it."""
    start = re.match(r"\s*", text)
    first = text[start.end() : start.end() + 1] if start else ""
    if first == "[":
        return _table(path, _items(path, text, text.index("[")))
    if first == "{" and path.suffix.lower() == ".json":
        with contextlib.suppress(json.JSONDecodeError, RecursionError):  # several objects are JSON Lines
            return _table(path, _listed_in(path, text, json.loads(text)))
    return _table(path, _json_lines(path, text))


def _table(path: Path, rows: Iterable[tuple[int, Any]]) -> Table:
    """Raises DataError for a row that is not an object."""
    columns: dict[str, None] = {}
    checked = []
    for line, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{path} line {line} is not a JSON object", 'each row must read {"image": ..., ...}')
        columns |= dict.fromkeys(row)
        checked.append((line, row))
    return Table(path, tuple(columns), checked)


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for line, line_text in enumerate(text.split("\n"), start=1):
        if not line_text.strip():
            continue
        try:
            yield line, json.loads(line_text)
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{path} line {line}{column}: {reason}", "each line must hold one JSON object") from error


_BETWEEN = re.compile(r"[\s,]*")


def _items(path: Path, text: str, start: int, whole: bool = True) -> Iterator[tuple[int, Any]]:
    """(line, value) of each item of the JSON list that begins at `start`, which ends the file if it is the `whole` of it."""
    decoder, line, counted_to = json.JSONDecoder(), 1, 0
    position = start + 1
    try:
        while True:
            position = _after(_BETWEEN, text, position)
            line, counted_to = line + text.count("\n", counted_to, position), position
            if text[position : position + 1] == "]":
                break
            item, position = decoder.raw_decode(text, position)
            yield line, item
    except (json.JSONDecodeError, RecursionError) as error:
        where = f"{error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else f"{line}"
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{path} line {where}: {reason}", "the file must hold one JSON list of objects") from error
    if whole and text[position + 1 :].strip():
        raise DataError(f"{path} line {line}: text after the list", "the file must hold one JSON list of objects")


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _listed_in(path: Path, text: str, content: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """The items of the only list of objects in an object. Raises DataError if there is none, or several."""
    lists = {key: v for key, v in content.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    if len(lists) != 1:
        raise DataError(
            f"{path} is a JSON object with {len(lists) or 'no'} lists of objects, but one is needed",
            "save the list of rows as a file of its own",
        )
    ((key, rows),) = lists.items()
    for match in re.finditer(rf"{re.escape(json.dumps(key, ensure_ascii=False))}\s*:\s*\[", text):
        with contextlib.suppress(DataError):
            items = list(_items(path, text, match.end() - 1, whole=False))
            if [row for _, row in items] == rows:
                return iter(items)
    return iter(enumerate(rows, start=1))
