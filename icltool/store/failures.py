"""Failed work: a list beside the artefact, kept while some of the work is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast

from icltool.contracts.json import Json
from icltool.errors import StoreError
from icltool.store.atomic import read_json, write_json, writing

SCHEMA, VERSION = "icltool-failures", 1


class GivenUp(TypedDict, total=False):
    """A unit of work in the list: how many answers, anchors or rows are missing, which ones, the number of attempts, and
    the last error with the machine on which it occurred."""

    count: int
    anchors: list[int]
    split: str
    examples: list[int]
    setting: str
    queries: list[int]
    costs: bool
    error: str
    tries: int
    where: str


def failures_file(artefact: Path) -> Path:
    """`NAME.failed.json` beside the artefact."""
    return artefact.with_name(f"{artefact.name}.failed.json")


def write_failures(artefact: Path, failures: Sequence[GivenUp]) -> Path:
    """Writes the failures of the last run, replacing those of earlier runs. Raises StoreError."""
    path = failures_file(artefact)
    write_json(path, {"schema": SCHEMA, "version": VERSION, "failures": list(failures)})
    return path


def read_failures(artefact: Path) -> list[GivenUp]:
    """The failures of the last run; empty if there is no list. Raises StoreError for a malformed file."""
    path = failures_file(artefact)
    if not path.is_file():
        return []
    content: Json = read_json(path)
    entries = content.get("failures", []) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise StoreError(f"{path} is malformed: a list of failures was expected", "remove it")
    return [_entry(path, entry) for entry in entries]


def _entry(path: Path, entry: Json) -> GivenUp:
    """The entry, checked."""
    if (
        not isinstance(entry, dict)
        or type(entry.get("count", 1)) is not int
        or not isinstance(entry.get("error", ""), str)
    ):
        raise StoreError(f"{path} is malformed: {entry!r} does not describe a failure", "remove it")
    return cast(GivenUp, entry)


def clear_failures(artefact: Path) -> None:
    """Removes the list once all work is done."""
    path = failures_file(artefact)
    with writing(path):
        path.unlink(missing_ok=True)
