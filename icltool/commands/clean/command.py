"""`icltool clean`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from icltool.cli.libraries import library_output
from icltool.cli.options import AS_JSON, QUIET, sign
from icltool.cli.output import print_line, print_list, print_report
from icltool.commands.clean.options import CleanConfig
from icltool.config.env import load_environment
from icltool.config.resolve import resolve
from icltool.errors import ConfigError, StoreError
from icltool.execution.progress import for_terminal

if TYPE_CHECKING:
    from icltool.commands.clean.run import CleanReport


def command(**values: Any) -> None:
    load_environment()
    quiet, as_json = values.pop("common_quiet"), values.pop("common_json")
    config = resolve("clean", CleanConfig, values)
    progress = for_terminal(quiet)
    from icltool.commands.clean import run as clean  # imports the readers of all artefacts

    with library_output():
        report = clean.plan(config, progress)
    removing = config.selects and not config.dry_run and bool(report.free)
    asking = removing and not config.yes
    if not as_json:
        _show(report, quiet and not asking)
    if config.selects and not config.dry_run and report.artefacts and not report.free:
        raise StoreError(
            "nothing was removed: everything is being written by other processes", "wait for them, or stop them"
        )
    if asking:
        _ask(clean.question(report), as_json)
    if removing:
        report = clean.run(report, progress)
    if as_json:
        print_report(report.summary())
    elif removing:
        print_line(report.title)
    if report.faults:
        raise StoreError("; ".join(report.faults), "these are unchanged; run the command again later")


def _show(report: CleanReport, quiet: bool) -> None:
    """Title and artefacts, with the remarks unless `quiet`."""
    print_line(report.title)
    for kind, entries in report.entries().items():
        print_list(kind, entries)
    if not quiet:
        for line in report.lines():
            print_line(line)


def _ask(question: str, as_json: bool) -> None:
    """Returns if the answer is yes, and ends the command if it is no. ConfigError without a terminal to ask on."""
    if as_json or not sys.stdin.isatty():
        why = "--json does not ask" if as_json else "there is no terminal to ask on"
        raise ConfigError(f"nothing was removed: {why}", "add --yes to remove, or --dry-run to list only")
    if not typer.confirm(question, err=True):
        print_line("nothing was removed")
        raise typer.Exit


sign(command, CleanConfig, QUIET, AS_JSON)
