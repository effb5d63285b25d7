"""Help texts in columns. Typer's own renderer takes a fifth of a second to import; this one takes nothing."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter


class HelpfulCommand(TyperCommand):
    """A command whose help is laid out by this module."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        formatter.write(render_help(self, ctx))


class HelpfulGroup(TyperGroup):
    """A group whose help, and whose own commands' help, is laid out by this module."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        formatter.write(render_help(self, ctx))


def render_help(command: Command, ctx: Context) -> str:
    """Usage, text, and tables of arguments, options and subcommands, as wide as the terminal (120 columns at most)."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    styled = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return "\n".join(_lines(command, ctx, width, styled)) + "\n"


def usage(command: Command, ctx: Context) -> str:
    """The usage line: "icltool prepare [OPTIONS] NAME"."""
    pieces = [ctx.command_path, "[OPTIONS]"]
    pieces += [argument_name(p) for p in command.get_params(ctx) if isinstance(p, TyperArgument)]
    if isinstance(command, TyperGroup):
        pieces.append("COMMAND [ARGUMENTS]…")
    return " ".join(pieces)


def argument_name(parameter: TyperArgument) -> str:
    """An argument's name as the usage line shows it."""
    return parameter.metavar or str(parameter.name).upper()


def option_names(parameter: TyperOption) -> str:
    """All names of an option, the short one first: "-n, --anchors"; "--x / --no-x"."""
    names = ", ".join(sorted(parameter.opts, key=len))
    return names + (" / " + ", ".join(parameter.secondary_opts) if parameter.secondary_opts else "")


def option_value(parameter: TyperOption) -> str:
    """What stands behind an option: its metavar; nothing for flags."""
    return "" if parameter.is_flag else str(parameter.metavar or "TEXT")


def paragraphs(command: Command) -> list[str]:
    """The help text's paragraphs, each on one line; a block of indented lines (an example) stays as it is."""
    blocks = inspect.cleandoc(command.help or "").split("\n\n")
    return [block if block.startswith(" ") else " ".join(block.split()) for block in blocks if block.strip()]


def arguments(command: Command, ctx: Context) -> list[TyperArgument]:
    """The arguments that the help shows."""
    return [p for p in command.get_params(ctx) if isinstance(p, TyperArgument) and not p.hidden]


def options(command: Command, ctx: Context) -> list[TyperOption]:
    """The options that the help shows; --help itself comes last."""
    found = [p for p in command.get_params(ctx) if isinstance(p, TyperOption) and not p.hidden]
    return sorted(found, key=lambda p: "--help" in p.opts)


def subcommands(command: Command) -> Mapping[str, Command]:
    """The commands of a group by their names; none of a command that is no group."""
    return command.commands if isinstance(command, TyperGroup) else {}


def _lines(command: Command, ctx: Context, width: int, styled: bool) -> Iterator[str]:
    yield f"{_style('Usage:', 'bold', styled)} {usage(command, ctx)}"
    for paragraph in paragraphs(command):
        yield ""
        yield from [paragraph] if paragraph.startswith(" ") else _wrapped(paragraph, width)
    tables = {
        "Arguments": [(argument_name(p), "", p.help or "") for p in arguments(command, ctx)],
        "Options": [(option_names(p), option_value(p), p.help or "") for p in options(command, ctx)],
        "Commands": [(name, "", c.get_short_help_str(limit=200)) for name, c in subcommands(command).items()],
    }
    for title, rows in tables.items():
        yield from _section(title, rows, width, styled)


def _section(title: str, rows: list[tuple[str, str, str]], width: int, styled: bool) -> Iterator[str]:
    """A heading, and a line per row: name and value, then the description in a column of its own.

    A name that is too long for its column has its description below.
    """
    if not rows:
        return
    yield ""
    yield _style(f"{title}:", "bold", styled)
    column = min(max(len(f"{name} {value}".strip()) for name, value, _ in rows), 34) + 4
    for name, value, text in rows:
        head = f"  {_style(name, 'cyan', styled)}" + (f" {_style(value, 'yellow', styled)}" if value else "")
        length = 2 + len(f"{name} {value}".strip())
        described = _wrapped(text, max(width - column, 30)) or [""]
        if length + 2 > column:
            yield head
        else:
            yield (head + " " * (column - length) + described.pop(0)).rstrip()
        yield from (" " * column + line for line in described)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _style(text: str, style: str, styled: bool) -> str:
    codes = {"bold": "1", "cyan": "36", "yellow": "33"}
    return f"\x1b[{codes[style]}m{text}\x1b[0m" if styled else text
