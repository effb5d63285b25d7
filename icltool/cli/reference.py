"""The command reference in Markdown, made from the commands themselves.

`python -m icltool.cli.reference` prints it; with `--write` it writes the guide's topic `reference`, and the file that
`--help` is read from.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from typer.core import TyperGroup

import icltool
from icltool.cli.group import command_line
from icltool.cli.help import describe
from icltool.cli.layout import CommandHelp, Row
from icltool.cli.quick_help import FILE, as_json
from icltool.plugin.commands import commands

if TYPE_CHECKING:
    from typer._click import Command, Context

REFERENCE = Path(icltool.__file__).parent / "guide" / "reference.md"
#: Groups whose options, where several commands have them, stand once in a section of their own.
_SHARED = ("Model", "Generation", "Speed and memory", "Several devices", "Every command")
_INTRODUCTION = """\
# Reference

Every command with all its options, as `icltool COMMAND --help-all` lists them.

In options, `_` may be typed for `-`. An option `--[no-]x` is switched on by `--x` and off by `--no-x`. A value with `,…`
takes several, with commas between them or with the option repeated.
"""


def helps() -> list[CommandHelp]:
    """The help of icltool and of each of its own commands, in the order of the overview."""
    group = command_line()
    with _context(group, "icltool", None) as root:
        inner = [help for name in commands() for help in _described(group.load(name), name, root)]
        return [describe(group, root), *inner]


def render_reference() -> str:
    """Markdown of all commands with all their options, the same on every machine."""
    every = [help for help in helps() if help.path != "icltool"]
    counts = Counter(row for help in every for row in help.options if row.group in _SHARED)
    shared = {
        group: _in_order([row for row in counts if row.group == group and counts[row] > 1], every) for group in _SHARED
    }
    lines = [_INTRODUCTION]
    for help in every:
        lines += _section(help, shared)
    lines += ["## Shared options", ""]
    for group, rows in shared.items():
        lines += [f"### {group}", "", *_items(rows), ""] if rows else []
    return "\n".join(lines).strip() + "\n"


def _in_order(rows: list[Row], helps: list[CommandHelp]) -> list[Row]:
    """Rows in the order of the command that has most of them."""
    longest = max(helps, key=lambda help: len(set(rows) & set(help.options))).options
    return sorted(rows, key=lambda row: longest.index(row) if row in longest else len(longest))


def _described(command: Command, name: str, parent: Context) -> Iterator[CommandHelp]:
    """The help of a command, and of each command of a group."""
    with _context(command, name, parent) as context:
        yield describe(command, context)
        if isinstance(command, TyperGroup):
            for inner_name, inner in command.commands.items():
                yield from _described(inner, inner_name, context)


def _context(command: Command, name: str, parent: Context | None) -> Context:
    """A context in which a command can be described without being run."""
    return command.context_class(
        command, info_name=name, parent=parent, resilient_parsing=True, **command.context_settings
    )


def _section(help: CommandHelp, shared: dict[str, list[Row]]) -> Iterator[str]:
    """A command: usage, text, examples, arguments, its own options by group, and the shared ones by reference."""
    level = "##" if help.path.count(" ") == 1 else "###"
    yield from (f"{level} `{help.path}`", "", "```", help.usage, "```", "")
    for is_example, paragraphs in groupby(help.paragraphs, key=lambda paragraph: paragraph.startswith(" ")):
        if is_example:
            yield from ("```", *(line.strip() for block in paragraphs for line in block.splitlines()), "```", "")
        else:
            yield from (line for paragraph in paragraphs for line in (paragraph, ""))
    if help.arguments:
        yield from ("**Arguments**", "", *_items(help.arguments), "")
    references = []
    for group, rows in groupby(help.options, key=lambda row: row.group):
        options = list(rows)
        common = [row for row in shared.get(group, ()) if row in options]
        if common:
            references.append(_reference(common, group, shared[group]))
            options = [row for row in options if row not in common]
        options = [row for row in options if "--help" not in row.names]
        if options:
            yield from (f"**{group}**", "", *_items(options), "")
    if references:
        yield from (f"Shared options: {', '.join(references)}.", "")


def _reference(common: Sequence[Row], group: str, shared: Sequence[Row]) -> str:
    """A link to a section of shared options, with those that the command lacks, or the few that it has."""
    link = f"[{group}](#{group.lower().replace(' ', '-')})"
    missing = [row for row in shared if row not in common]
    if not missing:
        return link
    word, rows = ("only", common) if len(common) < len(missing) else ("without", missing)
    return f"{link} ({word} {', '.join(f'`{row.names}`' for row in rows)})"


def _items(rows: Sequence[Row]) -> list[str]:
    return [f"- `{row.head}`: {row.text.replace('<', '&lt;')}" for row in rows]


def main() -> int:
    """Prints the reference, or writes it and the quick help."""
    parser = argparse.ArgumentParser(prog="python -m icltool.cli.reference", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {REFERENCE.name} and {FILE.name} in the package")
    if not parser.parse_args().write:
        print(render_reference(), end="")
        return 0
    REFERENCE.parent.mkdir(exist_ok=True)
    REFERENCE.write_text(render_reference(), encoding="utf-8")
    FILE.write_text(as_json(helps()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
