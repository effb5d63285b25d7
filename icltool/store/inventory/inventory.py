"""The contents of a workspace: artefacts, and what killed runs left behind."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from icltool.errors import StoreError
from icltool.store.failures import failures_file, read_failures
from icltool.store.inventory.artefact import KINDS, Artefact, Inventory
from icltool.store.inventory.inspection import COMPLETE, FAILED, LEFTOVER, UNFINISHED, Facts, inspect, is_failures
from icltool.store.inventory.lineage import related
from icltool.store.journal import journal_path
from icltool.store.locking import held_by
from icltool.store.out_of_order_rows import out_of_order_path
from icltool.store.workspace import Workspace

#: Kinds whose artefacts are written without a lock.
_UNLOCKED = ("exports",)
#: Seconds after which a temporary file without a lock counts as a leftover.
PATIENCE = 3600.0

#: Part of the temporary names of artefacts that are being removed.
REMOVED = ".removed"
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.[0-9a-f]{8}\.tmp(?P<suffix>\.[^.]+)?\Z|\.[0-9a-f]{16}\.tmp\Z")
_LOCK = re.compile(r"\.(?P<name>.+)\.lock\Z")
_JOURNAL = re.compile(r"\.(?P<name>.+)\.journal\Z")
_AHEAD = re.compile(r"\.(?P<name>.+)\.ahead\Z")


def inventory(workspace: Workspace) -> Inventory:
    """Lists every artefact without reading rows. Links are listed as links, and their targets are not measured; a folder of
    the workspace that is a link out of it is left out, and so is whatever icltool did not create.
    """
    artefacts: list[Artefact] = []
    remarks: list[str] = []
    root = workspace.root.resolve()
    for kind in KINDS:
        folder = workspace.root / kind
        if not folder.is_dir():
            continue
        if folder.resolve() != root / kind:
            remarks.append(f"{folder} is a link to {folder.resolve()}: its content is left alone")
            continue
        foreign: list[Path] = []
        artefacts += sorted(_of_kind(kind, folder, foreign), key=lambda a: a.name)
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            remarks.append(f"{foreign[0]}{more}: not icltool's, left alone")
    return Inventory(tuple(related(artefacts, workspace)), tuple(remarks))


class Measured(NamedTuple):
    """The `bytes` and number of `files` of a place, and the time of the last change (seconds since the epoch)."""

    bytes: int
    files: int
    changed: float


def measure(paths: Sequence[Path]) -> Measured:
    """Measures files, and folders with all their contents; links count as links. Lock files do not count."""
    total, files, newest = 0, 0, 0.0
    for path in paths:
        for status in _statuses(path):
            total, files, newest = total + status.st_size, files + 1, max(newest, status.st_mtime)
    return Measured(total, files, newest)


def _statuses(path: Path) -> Iterator[os.stat_result]:
    """The status of the file, or of every file in the folder; the folder's own if it is empty."""
    try:
        own = path.lstat()
    except OSError:
        return
    if not stat.S_ISDIR(own.st_mode):
        yield own
        return
    empty = True
    waiting = [str(path)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.name.endswith(".lock"):
                    empty = False
                    with contextlib.suppress(OSError):
                        yield entry.stat(follow_symlinks=False)
    if empty:
        yield os.stat_result((*own[:6], 0, *own[7:]))


def _of_kind(kind: str, folder: Path, foreign: list[Path]) -> Iterator[Artefact]:
    """The artefacts in one folder of the workspace; entries that icltool did not create are added to `foreign`."""
    if kind == "datasets":
        for place in _entries(folder):
            if place.name.startswith("."):
                continue
            if place.is_symlink() or not place.is_dir():
                foreign.append(place)
                continue
            for inner in _entries(place):
                yield from _one(kind, folder, inner, foreign)
        return
    for entry in _entries(folder):
        yield from _one(kind, folder, entry, foreign)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _one(kind: str, top: Path, path: Path, foreign: list[Path]) -> Iterator[Artefact]:
    """The artefact at `path` with the leftovers in it, or the leftover at `path`."""
    if path.name.startswith("."):
        yield from _left(kind, top, path)
        return
    facts = inspect(kind, path)
    if facts is None:
        if is_failures(path):
            yield from _left(kind, top, path)
        elif not (path.name.endswith(FAILED) and os.path.lexists(path.with_name(path.name.removesuffix(FAILED)))):
            foreign.append(path)
        return
    lock = _lock_of(kind, path)
    parts = () if kind == "exports" else _beside(path)
    yield _artefact(kind, top, path, _with_failures(facts, path), parts, lock)
    if path.is_dir() and not path.is_symlink() and kind in ("checkpoints", "evaluations"):
        for inner in (*_entries(path), *_entries(path / "predictions")):
            if _TEMPORARY.match(inner.name):
                yield from _left(kind, top, inner, lock)


def _beside(path: Path) -> tuple[Path, ...]:
    """The files beside `path` that belong to the artefact."""
    return tuple(p for p in (journal_path(path), out_of_order_path(path), failures_file(path)) if p.is_file())


def _lock_of(kind: str, path: Path) -> Path | None:
    if kind == "evaluations":
        return path / "results.json"
    return None if kind in _UNLOCKED else path


def _with_failures(facts: Facts, path: Path) -> Facts:
    """The facts with the last error of a run with failed units."""
    places = [path, path / "results.json"] if path.is_dir() else [path]
    for place in places:
        with contextlib.suppress(StoreError, AttributeError):
            if failures := read_failures(place):
                return facts.noting(f"{len(failures)} given up, the last: {str(failures[-1].get('error', ''))[:200]}")
    return facts


def _artefact(
    kind: str, top: Path, path: Path, facts: Facts, parts: tuple[Path, ...] = (), lock: Path | None = None
) -> Artefact:
    size, files, changed = measure((path, *parts))
    return Artefact(
        kind=kind,
        name=path.relative_to(top).as_posix(),
        path=path,
        facts=facts,
        bytes=size,
        files=files,
        changed=changed,
        parts=parts,
        lock=lock,
        held_by=held_by(lock) if lock is not None else "",
        link=str(path.readlink()) if path.is_symlink() else "",
    )


def _left(kind: str, top: Path, path: Path, lock: Path | None = None) -> Iterator[Artefact]:
    """The leftover of a killed run at `path`, unless it is in use or is not a leftover. `lock` is the artefact that
    contains it."""
    owner, note = lock, ""
    if match := _TEMPORARY.match(path.name):
        stem = match["stem"] or ""
        removed = stem.endswith(REMOVED)
        note = "half removed" if removed else "half written"
        if owner is None and stem and kind not in _UNLOCKED:
            owner = path.with_name(stem.removesuffix(REMOVED) + (match["suffix"] or ""))
        locks = owner is not None and _lock_exists(owner)
        if not (removed or locks) and time.time() - measure((path,))[2] < PATIENCE:
            return  # no lock shows whether it is being written at the moment
        owner = owner if locks else None
    elif match := _LOCK.match(path.name):
        owner = path.with_name(match["name"])
        if os.path.lexists(owner) or _beside(owner):
            return
        note = "lock of an artefact that is gone"
    elif orphan := _orphan(path):
        owner, note = orphan
        if os.path.lexists(owner):
            return
        if kind == "captions" and path == journal_path(owner):
            yield _artefact(kind, top, owner, Facts(UNFINISHED, "the call was interrupted"), _beside(owner), owner)
            return
    else:
        return
    if owner is None or not held_by(owner):
        yield _artefact(kind, top, path, Facts(LEFTOVER, note), (), owner)


def _orphan(path: Path) -> tuple[Path, str] | None:
    """(the artefact that the file at `path` belongs to, the note if that is gone); None for any other file."""
    for pattern, what in ((_JOURNAL, "journal"), (_AHEAD, "waiting rows")):
        if match := pattern.match(path.name):
            return path.with_name(match["name"]), f"{what} of a file that is gone"
    if path.name.endswith(FAILED):
        return path.with_name(path.name.removesuffix(FAILED)), "list of what was given up of a file that is gone"
    return None


def _lock_exists(owner: Path) -> bool:
    return owner.with_name(f".{owner.name}.lock").exists()


def is_finished(artefact: Artefact) -> bool:
    """Whether it is a result that may have taken long: complete, and neither a leftover nor a cache."""
    return artefact.state == COMPLETE and artefact.kind != "cache"
