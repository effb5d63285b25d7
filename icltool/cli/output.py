"""What commands print: tables and remarks for people, JSON for programs."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from icltool.contracts.json import Json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Columns of a console that wraps nothing.
_UNLIMITED = 100_000


@runtime_checkable
class Report(Protocol):
    """What a stage returns."""

    @property
    def title(self) -> str: ...

    @property
    def path(self) -> Path | None: ...

    def rows(self) -> Sequence[Mapping[str, object]]: ...

    def lines(self) -> list[str]: ...


@runtime_checkable
class DrawsTable(Protocol):
    """A report with something for rich to print in place of the table of its rows, with more in it under `verbose`; None
    if the table of its rows is to be printed."""

    def table(self, verbose: bool = False) -> RenderableType | None: ...


@runtime_checkable
class HasDetails(Protocol):
    """A report with notes that only --verbose prints, after the others."""

    @property
    def details(self) -> Sequence[str]: ...


@runtime_checkable
class HasPrintout(Protocol):
    """A report that is a text, printed as it is, rather than a table."""

    def printout(self) -> str: ...


@runtime_checkable
class _Numbers(Protocol):
    """One of numpy's scalars or arrays."""

    def tolist(self) -> object: ...


def show(report: Report | Sequence[Path], as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
    """Prints a stage's report: its table, its notes and the path of the result; under `quiet` the table only, under `verbose`
    the details, too. JSON has all notes."""
    if not isinstance(report, Report):
        report = _Files([Path(path) for path in report])
    details = list(report.details) if isinstance(report, HasDetails) else []
    if as_json:
        path = None if report.path is None else str(report.path)
        notes = [*report.lines(), *details]
        print_report({"title": report.title, "path": path, "rows": report.rows(), "notes": notes})
        return
    if isinstance(report, HasPrintout):
        print_line(report.printout())
    elif isinstance(report, DrawsTable) and (table := report.table(verbose)) is not None:
        _console().print(table)
    else:
        print_rows(report.title, report.rows())
    if not quiet:
        output = [] if report.path is None else [f"output: {_from_here(report.path)}"]
        for line in [*report.lines(), *(details if verbose else ()), *output]:
            print_note(line)


def _from_here(path: Path) -> Path:
    """The path relative to the current folder if it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def print_rows(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Prints rows as a table; the columns are the rows' keys, in the order in which they come up."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        print_line(title)
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for column in columns:
        number = all(isinstance(row.get(column), (int, float)) for row in rows if row.get(column) is not None)
        table.add_column(Text(column.replace("_", " ")), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(column), _names_something(column))) for column in columns))
    print_line(title)
    _console().print(table)


def print_list(title: str, entries: Iterable[tuple[str, str]]) -> None:
    """Prints a heading and an indented list: name, then text, wrapped at the width of the screen (80 columns in a pipe, or
    COLUMNS). Words, such as paths, are never broken; each line of a text begins a line."""
    entries = list(entries)
    names = min(max((len(name) for name, _ in entries), default=0), _LONGEST_NAME)
    indent = " " * (names + 4)
    print_line(title)
    for name, text in entries:
        lines = [line for part in text.splitlines() for line in _wrapped(part, len(indent))]
        if len(name) > names:
            lines.insert(0, "")
        first = f"  {name:{names}}  {lines[0] if lines else ''}"
        print_line("\n".join([first.rstrip(), *(indent + line for line in lines[1:])]))
    print_line("")


def print_text(text: str) -> None:
    """Prints paragraphs, wrapped at the width of the screen; one with indented lines or items of a list stays as it is."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text)):
        lines = paragraph.splitlines()
        verbatim = any(re.match(r"\s|[-*|#] |\w+ = |\[", line) for line in lines)
        print_line(("\n" if number else "") + "\n".join(lines if verbatim else _wrapped(" ".join(lines))))


def _wrapped(text: str, indent: int = 0) -> list[str]:
    """The lines of a text that is `indent` columns to the right."""
    width = max(shutil.get_terminal_size((80, 24)).columns - indent, _NARROWEST)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


#: Names longer than this stand on a line of their own, and a text is no narrower than this.
_LONGEST_NAME, _NARROWEST = 26, 20


def _names_something(column: str) -> bool:
    """Whole numbers in these columns are names, not amounts."""
    return column in ("id", "seed") or column.endswith("_id")


def cell(value: object, name: bool = False) -> str:
    """One value for people: thousands separated (not in a `name`), four significant digits, "-" for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if name else f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value)
    return str(value)


def print_json(value: object) -> None:
    """Prints strict JSON: paths as texts, figures that are no number as null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_report(content: Mapping[str, object]) -> None:
    """Prints a report as JSON that begins with its schema and version."""
    print_json({"schema": "icltool-report", "version": 2, **content})


def print_line(text: str) -> None:
    """Prints a line as it is, not wrapped."""
    print(text)


def print_note(text: str) -> None:
    """Prints a line, wrapped between words to the width of the screen; what does not fit after a break is indented."""
    if (width := _width()) is None:
        print(text)
        return
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        wrapped = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        print("\n".join(wrapped))


def _plain(value: object) -> Json:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, _Numbers):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _width() -> int | None:
    """The columns of the screen: those of COLUMNS, else the terminal's; None for a pipe or a file, which have no width."""
    named = os.environ.get("COLUMNS", "").isdigit()
    return shutil.get_terminal_size().columns if named or sys.stdout.isatty() else None


def _console() -> Console:
    """A table is as wide as it needs to be when a program or a file reads it."""
    from rich.console import Console

    return Console(width=_width() or _UNLIMITED)


class _Files:
    """The report of a stage that returns the files it wrote."""

    title = "files written"
    path: Path | None = None

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def rows(self) -> list[dict[str, object]]:
        return [{"file": str(file), "bytes": file.stat().st_size if file.is_file() else None} for file in self._files]

    def lines(self) -> list[str]:
        return []
