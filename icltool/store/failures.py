"""Work that was given up: a list beside the artefact, for as long as something of it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from icltool.store.atomic import read_json, write_json, writing

SCHEMA, VERSION = "icltool-failures", 1


def failures_file(artefact: Path) -> Path:
    """`NAME.failed.json` beside the artefact."""
    return artefact.with_name(f"{artefact.name}.failed.json")


def write_failures(artefact: Path, failures: Sequence[dict[str, Any]]) -> Path:
    """Writes what was given up in the last run, JSON values; what an earlier run gave up is replaced. Raises StoreError."""
    path = failures_file(artefact)
    write_json(path, {"schema": SCHEMA, "version": VERSION, "failures": list(failures)})
    return path


def read_failures(artefact: Path) -> list[dict[str, Any]]:
    """What the last run gave up; nothing where there is no list. Raises StoreError for a file that is malformed."""
    path = failures_file(artefact)
    return list(read_json(path).get("failures", ())) if path.is_file() else []


def clear_failures(artefact: Path) -> None:
    """Removes the list: everything is there."""
    path = failures_file(artefact)
    with writing(path):
        path.unlink(missing_ok=True)
