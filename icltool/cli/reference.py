"""The command reference in Markdown, made from the commands themselves.

`python -m icltool.cli.reference` prints it; with `--write` it replaces what stands between the markers in README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

from icltool.cli.app import LazyGroup, app
from icltool.cli.help import describe
from icltool.cli.layout import CommandHelp
from icltool.errors import ConfigError
from icltool.plugin.commands import commands

if TYPE_CHECKING:
    from typer._click import Command, Context

START, END = "<!-- commands -->", "<!-- /commands -->"


def render_reference() -> str:
    """Markdown of all commands with all their options, the same on every machine."""
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    lines: list[str] = []
    with _context(group, "icltool", None) as root:
        for name in commands():
            lines += _command(group.load(name), name, root)
    return "\n".join(lines).strip() + "\n"


def replace_between_markers(text: str, reference: str) -> str:
    """`text` with everything between the markers replaced. ConfigError when the markers are not there, once each."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ConfigError(f"the text needs the lines {START} and {END}, once each and in this order")
    before, after = text.split(START)[0], text.split(END)[1]
    return f"{before}{START}\n\n{reference}\n{END}{after}"


def _command(command: Command, name: str, parent: Context | None) -> Iterator[str]:
    """A section for a command, and one for each command of a group."""
    with _context(command, name, parent) as ctx:
        help = describe(command, ctx)
        yield from (f"### `{help.path}`", "", "```", help.usage, "```", "")
        for paragraph in help.paragraphs:
            yield from (["```", *_dedented(paragraph), "```", ""] if paragraph.startswith(" ") else [paragraph, ""])
        yield from _table(help)
        if isinstance(command, TyperGroup):
            for inner_name, inner in command.commands.items():
                yield from _command(inner, inner_name, ctx)


def _table(help: CommandHelp) -> Iterator[str]:
    rows = [*help.arguments, *(option for option in help.options if "--help" not in option.names)]
    if rows:
        yield from ("| option | meaning |", "|---|---|")
        yield from (f"| `{_escaped(row.head)}` | {_escaped(row.text)} |" for row in rows)
        yield ""


def _context(command: Command, name: str, parent: Context | None) -> Context:
    """A context in which a command can be described without being run."""
    return command.context_class(command, info_name=name, parent=parent, resilient_parsing=True)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _dedented(block: str) -> list[str]:
    return [line.strip() for line in block.splitlines()]


def main() -> int:
    """Prints the reference, or writes it into README.md."""
    parser = argparse.ArgumentParser(prog="python -m icltool.cli.reference", description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace what stands between the markers in the file")
    parser.add_argument("--file", type=Path, default=Path("README.md"), help="the file (default: README.md)")
    given = parser.parse_args()
    if not given.write:
        print(render_reference(), end="")
        return 0
    try:
        text = given.file.read_text(encoding="utf-8")
        given.file.write_text(replace_between_markers(text, render_reference()), encoding="utf-8")
    except (OSError, ConfigError) as error:
        print(f"error: {given.file}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
