"""The entries of lists in JSON files: each is converted at once, and a faulty one is named by its file and position."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from icltool.components.datasets.json_stream import read_json
from icltool.contracts import read_whole
from icltool.errors import DataError

Row = TypeVar("Row")

_LARGEST = 2**63 - 1


def listed(
    path: Path, keys: Sequence[str], row: Callable[[Mapping[str, Any], int], Row], what: str, hint: str
) -> list[Row]:
    """The records of a file's list, each by `row` from its fields and its position. The list stands under one of the keys
    ("": the file is a list).

    Raises DataError that names file and entry where `row` raises KeyError (a field is missing), TypeError or ValueError
    (with the reason). `what` says what an entry should be, `hint` how to get the file.
    """
    positions = Counter[str]()

    def convert(key: str, record: object) -> object:
        if key not in keys:
            return None
        positions[key] += 1
        return converted(record, row, positions[key] - 1, f"{path}: entry {positions[key] - 1} is not {what}", hint)

    content = read_json(path, hint, convert)
    rows = content if "" in keys and isinstance(content, list) else None
    if isinstance(content, dict):
        rows = next((content[key] for key in keys if isinstance(content.get(key), list)), None)
    if rows is None:
        raise DataError(f"{path} has no list {keys[-1]!r}" if keys[-1] else f"{path} is not a list", hint)
    return rows


def converted(
    record: object, row: Callable[[Mapping[str, Any], int], Row], position: int, fault: str, hint: str
) -> Row:
    """`row` of a record. DataError `fault`, with the reason, if it has another form."""
    try:
        if not isinstance(record, dict):
            raise TypeError(f"it is {record!r:.40}")
        return row(record, position)
    except KeyError as error:
        reason = f"it has no {error}"
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise DataError(f"{fault}: {reason}", hint)


def text_of(value: object) -> str:
    """The value, a text. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value


def texts_of(values: object) -> tuple[str, ...]:
    """A list of texts, or of records with an "answer", as texts. Raises TypeError for anything else."""
    if not isinstance(values, list):
        raise TypeError(f"{values!r:.40} is not a list")
    texts = [value["answer"] if isinstance(value, dict) else value for value in values]
    return tuple(text_of(text) for text in texts)


def flag_of(value: object) -> bool:
    """The value, true or false. Raises TypeError for anything else."""
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is neither true nor false")
    return value


def expect_once(where: str, ids: Iterable[str], hint: str) -> None:
    """Raises DataError that names the first id which questions of a file share."""
    seen: set[str] = set()
    for identifier in ids:
        if identifier in seen:
            raise DataError(f"{where} lists question {identifier} more than once", hint)
        seen.add(identifier)


def whole(value: object) -> int:
    """The value, an integer from 0 to 2^63 - 1. Raises TypeError for anything else."""
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise TypeError(f"{value!r:.40} is not a whole number")
    return value


def json_lines(path: Path, row: Callable[[Mapping[str, Any], int], Row], what: str, hint: str) -> list[Row]:
    """The records of a file of JSON lines, each by `row` from its fields and the number of its line; blank lines do not count.
    Raises DataError as `listed`."""
    try:
        text = read_whole(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}", hint) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} line {number} is not well-formed JSON: {error}", hint) from error
        rows.append(converted(record, row, number, f"{path} line {number} is not {what}", hint))
    return rows
