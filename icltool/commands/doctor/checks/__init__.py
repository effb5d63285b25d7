"""The checks of `icltool doctor`. Each check returns rows; a check that fails returns a row with the error."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable
from pathlib import Path

from icltool.commands.doctor.checks.rows import Row, row

#: The JSON output: {"schema", "version", "created", "sections": {title: [row, …]}, "problems": [text, …]}; a row is
#: {"item", "value", "status", "note"} and may have "data". The version changes when a key is renamed or changes its
#: meaning; new sections, rows and keys of "data" do not change it.
SCHEMA, VERSION = "icltool.doctor", 1

__all__ = ["SCHEMA", "VERSION", "Row", "problems", "row", "sections"]


#: The sections in order: title -> module and function; those in `_OF_WORKSPACE` receive the workspace.
_CHECKS = {
    "versions": "packages:versions",
    "system": "system:system",
    "devices": "devices:devices",
    "memory and disk": "system:memory",
    "java": "environment:java",
    "environment": "environment:environment",
    "variables": "environment:variables",
    "optional packages": "packages:optional_packages",
    "caches": "environment:caches",
    "ray": "environment:ray",
    "plugins": "components:plugins",
    "profiles": "components:profiles",
    "workspace": "artefacts:artefacts",
}
_OF_WORKSPACE = ("memory and disk", "workspace")


def sections(workspace: Path) -> dict[str, list[Row]]:
    """All sections by title. Never raises: a failed check becomes a row."""
    return {title: guarded(functools.partial(_run, title, workspace)) for title in _CHECKS}


def _run(title: str, workspace: Path) -> list[Row]:
    module, _, name = _CHECKS[title].partition(":")
    check = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    rows: list[Row] = check(workspace) if title in _OF_WORKSPACE else check()
    return rows


def guarded(check: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a check, or one row with its error."""
    try:
        return check()
    except (Exception, SystemExit) as error:  # a broken package may raise anything; the other checks go on
        lines = str(error).strip().splitlines()
        return [row("check", f"{type(error).__name__}: {lines[0] if lines else ''}", "problem", "please report this")]


def problems(checked: dict[str, list[Row]]) -> list[str]:
    """One line per row that needs attention."""
    bad = [(title, r) for title, rows in checked.items() for r in rows if r["status"] in ("problem", "missing")]
    return [re.sub(r"\s+", " ", f"{title}: {r['item']}: {r['value']}. {r['note']}").strip() for title, r in bad]
