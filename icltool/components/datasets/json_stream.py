"""Reads a large JSON file block by block and converts list entries at once; the whole text is never in memory.

VQAv2's annotations are 370 MB of text; as Python objects they would be ten times that.
"""

from __future__ import annotations

import codecs
import errno
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from icltool.contracts import open_file
from icltool.errors import DataError

#: Bytes read at a time.
BLOCK = 2**20
#: An error this close to the end of a block may come from a word or number that continues; "-Infinity" is the longest.
_WORD = 16
#: "1.5" with "e+" after it may be the start of a longer number; with one character more it would have been read as one.
_EXPONENT = 2
_BLANK = re.compile(r"[ \t\n\r]*")


def read_json(path: Path, get: str, convert: Callable[[str, object], object], block: int = BLOCK) -> object:
    """The value in a JSON file, in a folder or in a zip archive; as `json.load` if `convert` changes nothing.

    If the value is an object, entries of the lists that are its members become `convert(KEY, entry)` as soon as they
    are read; if it is a list, its entries become `convert("", entry)`. `get` is the hint: how to get the file.
    Raises DataError when the file is missing, unreadable, or not well-formed (with line and column).
    """
    with _scanned(path, get, block) as scanner:
        return scanner.document(convert)


def read_members(path: Path, get: str, block: int = BLOCK) -> Iterator[tuple[str, object]]:
    """(key, value) of each member of the object in a JSON file, in the order of the file; a repeated key comes repeatedly.

    Only one value is in memory at a time. Raises as `read_json`, and DataError if the file holds something else.
    """
    with _scanned(path, get, block) as scanner:
        if not scanner.begins_object():
            raise DataError(f"{path} holds no JSON object", get)
        yield from scanner.members()


@contextmanager
def _scanned(path: Path, get: str, block: int) -> Iterator[_Scanner]:
    """A scanner of the file; what goes wrong becomes a DataError."""
    try:
        with open_file(path) as file:
            scanner = _Scanner(file, block)
            try:
                yield scanner
            except json.JSONDecodeError as error:
                raise scanner.fault(path, error, get) from error
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", get) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not JSON: byte {error.start} is not UTF-8", get) from error
    except OSError as error:
        hint = get if error.errno == errno.EIO else "check its permissions"
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint) from error
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise DataError(f"{path} is not well-formed JSON: {error}", get) from error


class _Scanner:
    """The text read but not yet parsed, and the number of lines and columns before it."""

    def __init__(self, file: BinaryIO, block: int) -> None:
        self._file, self._block = file, block
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._value = json.JSONDecoder().raw_decode
        self._text, self._at, self._ended = "", 0, False
        self._bytes = self._lines = self._columns = 0

    def document(self, convert: Callable[[str, object], object]) -> object:
        """The one value of the file."""
        first = self._next()
        if first == "{":
            value: object = self._object(convert)
        elif first == "[":
            value = self._list("", convert)
        else:
            value = self._scan()
        self._end()
        return value

    def begins_object(self) -> bool:
        """Whether the value of the file is an object."""
        return self._next() == "{"

    def members(self) -> Iterator[tuple[str, object]]:
        """The members of the file's object."""
        for key in self._keys():
            yield key, self._scan()
        self._end()

    def _end(self) -> None:
        if self._next():
            self._fail("Extra data")

    def fault(self, path: Path, error: json.JSONDecodeError, hint: str) -> DataError:
        """The error with its line and column in the whole file."""
        line = 1 + self._lines + self._text.count("\n", 0, error.pos)
        start = self._text.rfind("\n", 0, error.pos)
        column = error.pos - start if start >= 0 else self._columns + error.pos + 1
        cut = self._ended and error.pos >= len(self._text.rstrip())
        cut = cut or error.msg.startswith("Unterminated string")
        what = "is cut off" if cut else "is not well-formed JSON"
        return DataError(f"{path} {what} at line {line}, column {column}: {error.msg}", hint)

    def _object(self, convert: Callable[[str, object], object]) -> dict[str, object]:
        members: dict[str, object] = {}
        for key in self._keys():
            members[key] = self._list(key, convert) if self._next() == "[" else self._scan()
        return members

    def _keys(self) -> Iterator[str]:
        """The keys of the object that begins here; after each, its value is to be scanned."""
        self._at += 1
        if self._next() == "}":
            self._at += 1
            return
        while True:
            if self._next() != '"':
                self._fail("Expecting property name enclosed in double quotes")
            key = str(self._scan())
            if self._next() != ":":
                self._fail("Expecting ':' delimiter")
            self._at += 1
            self._next()
            yield key
            if self._closed("}"):
                return

    def _list(self, key: str, convert: Callable[[str, object], object]) -> list[object]:
        items: list[object] = []
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return items
        while True:
            self._next()
            items.append(convert(key, self._scan()))
            if self._closed("]"):
                return items

    def _closed(self, bracket: str) -> bool:
        """Consumes the comma (returns False) or closing bracket (returns True) that must follow."""
        character = self._next()
        if character != "," and character != bracket:
            self._fail("Expecting ',' delimiter")
        self._at += 1
        return character == bracket

    def _next(self) -> str:
        """The next character other than white space, not consumed; "" at the end of the file."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read()

    def _scan(self) -> object:
        """The complete value that begins here."""
        while True:
            try:
                value, end = self._value(self._text, self._at)
            except json.JSONDecodeError as error:
                goes_on = error.pos >= len(self._text) - _WORD or error.msg.startswith("Unterminated string")
                if self._ended or not goes_on:
                    raise
            else:
                if end + _EXPONENT < len(self._text) or self._ended:
                    self._at = end
                    return value
            self._read()

    def _read(self) -> None:
        """Reads another block, at least as long as the pending text, so that a long value is scanned only a few times."""
        done = self._text[: self._at]
        lines = done.count("\n")
        self._lines += lines
        self._columns = len(done) - done.rfind("\n") - 1 if lines else self._columns + len(done)
        raw = self._file.read(max(self._block, len(self._text) - self._at))
        self._bytes += len(raw)
        self._ended = not raw
        try:
            text = self._decode(raw, self._ended)
        except UnicodeDecodeError as error:
            error.start += self._bytes - len(error.object)
            raise
        self._text, self._at = self._text[self._at :] + text, 0

    def _fail(self, what: str) -> NoReturn:
        raise json.JSONDecodeError(what, self._text, self._at)
