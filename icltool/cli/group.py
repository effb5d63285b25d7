"""The `icltool` command as a lazy group of subcommands.

The group knows names and summaries only. A command's module is imported when the command runs, or when its own help or
completion is asked for, so that `icltool --help` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand, TyperOption

from icltool.cli.help import SETTINGS, HelpfulCommand, HelpfulGroup
from icltool.cli.others import others_commands
from icltool.errors import closest
from icltool.plugin.commands import command_module, commands, stage_model, stages
from icltool.releases import __version__

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter


#: What a command's module holds: an annotated function, or a Typer group.
Runnable: TypeAlias = Callable[..., object] | typer.Typer


class LazyCommand(TyperCommand):
    """Stands for a command whose module has not been imported yet."""

    def load(self) -> Command:
        """Imports the module and builds the real command."""
        name = str(self.name)
        return as_click(_command(name), name)


class LazyGroup(HelpfulGroup):
    """A group of LazyCommands, each replaced by the real command at the moment it is resolved."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": {n: LazyCommand(n, help=s) for n, s in commands().items()}})

    def list_commands(self, ctx: Context) -> list[str]:
        self._add_others()
        return list(self.commands)

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        self._add_others()
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """The real command. An unknown name is a usage error with a suggestion."""
        word = args[0]
        if word not in self.commands and not word.startswith("-"):
            self._add_others()
        if word not in self.commands and not word.startswith("-") and not ctx.resilient_parsing:
            close = closest(word, self.commands)
            ctx.fail(f"no such command {word!r}" + (f"; did you mean {close!r}?" if close else ""))
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _loaded(command), rest

    def _add_others(self) -> None:
        """Commands of other packages, which are looked for only where the built-in ones do not answer."""
        for name, summary in others_commands().items():
            self.commands.setdefault(name, LazyCommand(name, help=summary))

    def load(self, name: str) -> Command:
        """The real command of this name."""
        return _loaded(self.commands[name])


def _loaded(command: Command) -> Command:
    return command.load() if isinstance(command, LazyCommand) else command


def _command(name: str) -> Runnable:
    """The annotated function or Typer group of a command."""
    if name not in commands():
        from icltool.plugin.manager import load_registry

        command: Runnable = load_registry().load("commands", name)
    elif name not in stages():
        command = command_module(name, "command").command
    else:
        from icltool.cli.stage import stage_command

        command = stage_command(name, stage_model(name), lambda: command_module(name, "run").run)
    return command


def as_click(command: Runnable, name: str) -> Command:
    """Builds the command object from a Typer group or an annotated function."""
    if not isinstance(command, typer.Typer):
        holder = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)
        holder.command(name, cls=HelpfulCommand)(command)
        command = holder
    built = typer.main.get_command(command)
    built.name = name
    return built


def _print_version(value: bool | None) -> None:
    if value:
        typer.echo(f"icltool {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup, name="icltool", rich_markup_mode=None, no_args_is_help=False, context_settings=SETTINGS
)


@app.callback(invoke_without_command=True)
def icltool(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Find, learn and compress the demonstrations that make a frozen vision-language model answer best.

    From raw data to a table of results: prepare, embed, generate, train, evaluate, export. `icltool demo` shows it all
    on a small made-up world, without downloads.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


#: Typer's own words begin with a capital, unlike those of all other options.
_COMPLETION_HELP = {
    "install_completion": "install completion of commands and options for the current shell",
    "show_completion": "print the completion script of the current shell",
}


def command_line() -> LazyGroup:
    """The group that `icltool` is."""
    group = typer.main.get_command(app)
    assert isinstance(group, LazyGroup)
    for parameter in group.params:
        if isinstance(parameter, TyperOption):
            parameter.help = _COMPLETION_HELP.get(str(parameter.name), parameter.help)
    return group
