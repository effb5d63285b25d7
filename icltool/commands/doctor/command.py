"""`icltool doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from icltool.cli.libraries import library_output
from icltool.cli.output import print_json, print_line, print_rows
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
        typer.Option("--workspace", metavar="PATH", help="the workspace to look at [env: ICLTOOL_WORKSPACE]"),
    ] = None,
    full_paths: Annotated[
        bool, typer.Option("--full-paths", help="with --json: home folder, user and machine are named as they are")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON, and nothing else")] = False,
) -> None:
    """Show versions, devices, memory, Java, variables, optional packages, plugins and the workspace.

    The last lines name what is missing or broken, and how to mend it. `icltool doctor --json` tells all that a bug report
    needs: attach it. It names the home folder and the user as ~ and the machine as HOST, and of tokens, keys and passwords
    says only that they are set.
    """
    with library_output():
        found = _found(workspace)
    wrong = problems(found)
    if as_json:
        print_json(_report(found, wrong, full_paths))
        return
    for title, rows in found.items():
        print_rows(title, [{key: value for key, value in r.items() if key != "data"} for r in rows])
    print_line("\n".join([f"{len(wrong)} problem(s):", *wrong]) if wrong else "no problems found")


def _found(workspace: str | None) -> dict[str, list[Row]]:
    """All sections; a .env file or a workspace that cannot be made sense of is a problem among the others."""
    extra: list[Row] = []
    folder = Path(workspace or StageConfig.model_fields["workspace"].default)
    try:
        environment_file = load_environment()
        if environment_file is not None:
            ignored = environment_file.ignored
            note = f"read, but for {', '.join(ignored)}: set these in the shell" if ignored else "read"
            extra.append(row(".env", environment_file.path, "ok", note))
    except IclError as error:
        extra.append(row(".env", error.message, "problem", error.hint or ""))
    try:
        folder = resolve("doctor", StageConfig, {"workspace": workspace}).workspace
    except IclError as error:
        extra.append(row("workspace", error.message, "problem", error.hint or ""))
    found = sections(folder)
    found["environment"] += extra
    return found


def _report(found: dict[str, list[Row]], wrong: list[str], full_paths: bool) -> dict[str, object]:
    """The JSON, whose form `icltool.commands.doctor.checks` describes."""
    told = {"schema": SCHEMA, "version": VERSION, "created": moment(), "sections": found, "problems": wrong}
    return told if full_paths else without_names(told)
