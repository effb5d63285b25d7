"""`icltool doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from icltool.cli.checks import problems, sections
from icltool.cli.output import print_json, print_line, print_rows, stdout_reserved
from icltool.config.base import StageConfig
from icltool.config.env import load_environment
from icltool.config.resolve import resolve


def command(
    workspace: Annotated[
        Optional[str],  # noqa: UP045 (Typer reads it)
        typer.Option("--workspace", metavar="PATH", help="the workspace to look at [env: ICLTOOL_WORKSPACE]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON, and nothing else")] = False,
) -> None:
    """Show versions, devices, memory, Java, variables, optional packages, plugins and the workspace.

    The last lines name what is missing or broken, and how to mend it.
    """
    environment_file = load_environment()
    folder: Path = resolve("doctor", StageConfig, {"workspace": workspace}).workspace
    with stdout_reserved(as_json):
        found = sections(folder)
    if environment_file is not None:
        found["environment"].append({"item": ".env", "value": str(environment_file), "status": "ok", "note": "read"})
    wrong = problems(found)
    if as_json:
        print_json({"sections": found, "problems": wrong})
        return
    for title, rows in found.items():
        print_rows(title, rows)
    print_line("\n".join([f"{len(wrong)} problem(s):", *wrong]) if wrong else "no problems found")
