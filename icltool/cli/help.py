"""Help of Typer's commands, laid out by icltool.cli.layout: Typer's own renderer takes a fifth of a second to import."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from icltool.cli.layout import OPTIONS, CommandHelp, Heading, Row, render
from icltool.config.groups import GROUPS

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter, Parameter

HELP, HELP_ALL = "--help", "--help-all"
#: What every command and group is made with: help has a short form, one for all options, and "_" is as good as "-" in flags.
SETTINGS = {
    "help_option_names": [HELP, "-h", HELP_ALL],
    "token_normalize_func": lambda token: token.replace("_", "-"),
}


class HelpfulCommand(TyperCommand):
    """A command with this help."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        _note_help_all(ctx, args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        formatter.write(render(describe(self, ctx), ctx.meta.get(HELP_ALL, False)))


class HelpfulGroup(TyperGroup):
    """A group with this help."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        _note_help_all(ctx, args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        formatter.write(render(describe(self, ctx), ctx.meta.get(HELP_ALL, False)))


def describe(command: Command, ctx: Context) -> CommandHelp:
    """The content of a command's help: options by group, daily ones first."""
    parameters = command.get_params(ctx)
    options = [_option(p) for p in parameters if isinstance(p, TyperOption) and not p.hidden and HELP not in p.opts]
    last = max((row.group for row in options), key=_rank, default=OPTIONS)
    options.append(Row(f"-h, {HELP}", "", "show this help", last))
    if not all(row.daily for row in options):
        options.append(Row(HELP_ALL, "", "show all options", last, daily=False))
    subcommands = command.commands if isinstance(command, TyperGroup) else {}
    return CommandHelp(
        path=ctx.command_path,
        usage=_usage(command, ctx, parameters),
        paragraphs=_paragraphs(command),
        arguments=[_argument(p) for p in parameters if isinstance(p, TyperArgument) and not p.hidden],
        options=sorted(options, key=lambda row: (_rank(row.group), not row.daily)),
        commands=[Row(name, "", inner.get_short_help_str(limit=200)) for name, inner in subcommands.items()],
    )


def _note_help_all(ctx: Context, arguments: list[str]) -> None:
    ctx.meta[HELP_ALL] = any(argument.replace("_", "-") == HELP_ALL for argument in arguments)


def _usage(command: Command, ctx: Context, parameters: list[Parameter]) -> str:
    """The usage line: "icltool prepare [OPTIONS] NAME"."""
    pieces = [ctx.command_path, "[OPTIONS]"]
    pieces += [_argument(p).names for p in parameters if isinstance(p, TyperArgument)]
    if isinstance(command, TyperGroup):
        pieces.append("COMMAND [ARGUMENTS]…")
    return " ".join(pieces)


def _argument(parameter: TyperArgument) -> Row:
    return Row(parameter.metavar or str(parameter.name).upper(), "", parameter.help or "")


def _option(parameter: TyperOption) -> Row:
    """An option under its first long flag; the others are aliases. A flag with an opposite is "--[no-]x"."""
    short = [flag for flag in parameter.opts if not flag.startswith("--")]
    long = next((flag for flag in parameter.opts if flag.startswith("--")), "")
    if parameter.secondary_opts:
        long = long.replace("--", "--[no-]", 1)
    heading = parameter.rich_help_panel
    return Row(
        names=", ".join([*short, long]),
        value="" if parameter.is_flag else str(parameter.metavar or "TEXT"),
        text=parameter.help or "",
        group=str(heading or OPTIONS),
        daily=heading.daily if isinstance(heading, Heading) else True,
    )


def _rank(group: str) -> int:
    """The place of a group: options without one come first."""
    return GROUPS.index(group) if group in GROUPS else -1


def _paragraphs(command: Command) -> list[str]:
    """The help text's paragraphs, each on one line; a block of indented lines (an example) stays as it is."""
    blocks = inspect.cleandoc(command.help or "").split("\n\n")
    return [block if block.startswith(" ") else " ".join(block.split()) for block in blocks if block.strip()]
