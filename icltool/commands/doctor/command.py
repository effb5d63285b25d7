"""`icltool doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from icltool.cli.libraries import library_output
from icltool.cli.output import print_json, print_line, print_list
from icltool.commands.doctor.checks import SCHEMA, VERSION, Row, problems, row, sections
from icltool.config.base import StageConfig
from icltool.config.env import load_environment
from icltool.config.resolve import resolve
from icltool.errors import IclError
from icltool.results.privacy import without_names
from icltool.store.provenance import moment


def command(
    workspace: Annotated[
        Optional[str],  # noqa: UP045 (Typer reads it)
        typer.Option(
            "--workspace",
            metavar="PATH",
            help="workspace to check (environment variable ICLTOOL_WORKSPACE; default: icl-workspace)",
        ),
    ] = None,
    full_paths: Annotated[
        bool,
        typer.Option("--full-paths", help="with --json: do not replace the names of home folder, user and machine"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON and nothing else")] = False,
) -> None:
    """Check versions, devices, memory, Java, variables, optional packages, plugins and the workspace.

    The last lines list problems and how to fix them. Attach the output of `icltool doctor --json` to a bug
    report: it contains no tokens, keys or passwords, and shows the home folder as ~ and the machine as HOST.
    """
    with library_output():
        checked = _sections(workspace)
    faults = problems(checked)
    if as_json:
        print_json(_report(checked, faults, full_paths))
        return
    for title, rows in checked.items():
        print_list(title, [(row["item"], _text(row)) for row in rows])
    print_line("\n".join([f"{_counted(len(faults), 'problem')}:", *faults]) if faults else "no problems found")


def _text(row: Row) -> str:
    """The value, whether it is wrong, and the note."""
    wrong = row["status"] if row["status"] in ("problem", "missing") and row["status"] != row["value"] else ""
    return "; ".join(filter(None, [f"{wrong}: {row['value']}" if wrong else row["value"], row["note"]]))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _sections(workspace: str | None) -> dict[str, list[Row]]:
    """All sections; an invalid .env file or workspace is a problem among the others."""
    extra: list[Row] = []
    folder = Path(workspace or StageConfig.model_fields["workspace"].default)
    try:
        environment_file = load_environment()
        if environment_file is not None:
            ignored = environment_file.ignored
            note = f"read, except {', '.join(ignored)}: set these in the shell" if ignored else "read"
            extra.append(row(".env", environment_file.path, "ok", note))
    except IclError as error:
        extra.append(row(".env", error.message, "problem", error.hint or ""))
    try:
        folder = resolve("doctor", StageConfig, {"workspace": workspace}).workspace
    except IclError as error:
        extra.append(row("workspace", error.message, "problem", error.hint or ""))
    checked = sections(folder)
    checked["environment"] += extra
    return checked


def _report(checked: dict[str, list[Row]], faults: list[str], full_paths: bool) -> dict[str, object]:
    """The JSON, whose format `icltool.commands.doctor.checks` describes."""
    report = {"schema": SCHEMA, "version": VERSION, "created": moment(), "sections": checked, "problems": faults}
    return report if full_paths else without_names(report)
