"""`icltool clean`."""

from __future__ import annotations

import sys
from typing import Any

import typer

from icltool.cli.libraries import library_output
from icltool.cli.options import AS_JSON, QUIET, sign
from icltool.cli.output import print_json, print_line, show
from icltool.commands.clean.options import CleanConfig
from icltool.config.env import load_environment
from icltool.config.resolve import resolve
from icltool.errors import ConfigError, StoreError
from icltool.execution.progress import for_terminal


def command(**given: Any) -> None:
    load_environment()
    quiet, as_json = given.pop("given_quiet"), given.pop("given_json")
    config = resolve("clean", CleanConfig, given)
    progress = for_terminal(quiet)
    from icltool.commands.clean import run as clean  # opens every kind of artefact, which the help does without

    with library_output():
        report = clean.plan(config, progress)
    removing = config.selects and not config.dry_run and bool(report.free)
    asking = removing and not config.yes
    if not as_json:
        show(report, quiet=quiet and not asking)
    if config.selects and not config.dry_run and report.artefacts and not report.free:
        raise StoreError("nothing was removed: all of it is being written", "wait for those processes, or stop them")
    if asking:
        _ask(clean.question(report), as_json)
    if removing:
        report = clean.run(report, progress)
    if as_json:
        print_json(report.summary())
    elif removing:
        print_line(report.title)
    if report.faults:
        raise StoreError("; ".join(report.faults), "they are as they were; run the command again later")


def _ask(question: str, as_json: bool) -> None:
    """Returns when the answer is yes, and ends the command when it is no. ConfigError where nobody can be asked."""
    if as_json or not sys.stdin.isatty():
        why = "--json asks nothing" if as_json else "there is no terminal to ask on"
        raise ConfigError(f"nothing was removed: {why}", "add --yes to remove, or --dry-run to list only")
    if not typer.confirm(question, err=True):
        print_line("nothing was removed")
        raise typer.Exit


sign(command, CleanConfig, QUIET, AS_JSON)
