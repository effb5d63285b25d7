"""How help looks: records of what a command has to say, and their text in columns. Neither Typer nor pydantic is imported."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: Heading of the options without a group.
OPTIONS = "Options"
#: Columns of names and values; a longer one has its description below.
NAMES = 27


class Heading(str):
    """The heading of an option, which Typer hands on with it; `daily`: the short help lists the option."""

    daily: bool

    def __new__(cls, group: str, daily: bool) -> Heading:
        heading = super().__new__(cls, group)
        heading.daily = daily
        return heading


class Row(NamedTuple):
    """An argument, an option or a subcommand: its names ("-n, --anchors"), its value ("N"; "" without one) and its text."""

    names: str
    value: str
    text: str
    group: str = OPTIONS
    daily: bool = True

    @property
    def head(self) -> str:
        """Names and value."""
        return f"{self.names} {self.value}".rstrip()


class CommandHelp(NamedTuple):
    """What a command's help shows. A paragraph that begins with a space is an example."""

    path: str
    usage: str
    paragraphs: Sequence[str]
    arguments: Sequence[Row]
    options: Sequence[Row]
    commands: Sequence[Row]

    @property
    def has_more(self) -> bool:
        """Whether there are options that only `--help-all` lists."""
        return not all(option.daily for option in self.options)


def render(help: CommandHelp, everything: bool) -> str:
    """The help as wide as the terminal (120 columns at most): all options, or the daily ones."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    styled = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return "\n".join(_lines(help, everything, width, styled)) + "\n"


def _lines(help: CommandHelp, everything: bool, width: int, styled: bool) -> Iterator[str]:
    yield f"{_style('Usage:', 'bold', styled)} {help.usage}"
    for paragraph in help.paragraphs:
        yield ""
        yield from [paragraph] if paragraph.startswith(" ") else _wrapped(paragraph, width)
    options = [row for row in help.options if row.daily or everything]
    sections = [("Arguments", help.arguments)]
    sections += [
        (group, [row for row in options if row.group == group]) for group in dict.fromkeys(o.group for o in options)
    ]
    sections.append(("Commands", help.commands))
    rows = [row for _, section in sections for row in section]
    column = max(len(row.head) for row in rows if len(row.head) <= NAMES) + 4
    for title, section in sections:
        if section:
            yield from ("", _style(f"{title}:", "bold", styled))
        for row in section:
            yield from _row(row, column, width, styled)
    if help.has_more and not everything:
        yield ""
        yield from _wrapped(f"Run `{help.path} --help-all` for all {len(help.options)} options.", width)


def _row(row: Row, column: int, width: int, styled: bool) -> Iterator[str]:
    """Names and value, then the description in a column of its own: below names that are too long."""
    head = f"  {_style(row.names, 'cyan', styled)}" + (f" {_style(row.value, 'yellow', styled)}" if row.value else "")
    text = _wrapped(row.text, max(width - column, 30)) or [""]
    length = 2 + len(row.head)
    if length + 2 > column:
        yield head
    else:
        yield (head + " " * (column - length) + text.pop(0)).rstrip()
    yield from (" " * column + line for line in text)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _style(text: str, style: str, styled: bool) -> str:
    codes = {"bold": "1", "cyan": "36", "yellow": "33"}
    return f"\x1b[{codes[style]}m{text}\x1b[0m" if styled else text
