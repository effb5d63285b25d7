"""Removes artefacts so that a partly removed one is never mistaken for a complete one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from icltool.errors import StoreError
from icltool.store.atomic import sync_folder, writing
from icltool.store.inventory.artefact import Artefact
from icltool.store.inventory.inspection import LEFTOVER
from icltool.store.inventory.inventory import REMOVED, measure
from icltool.store.locking import locked


def remove(artefact: Artefact, advance: Callable[[int], None] = lambda files: None) -> int:
    """Removes it with its parts, and returns the number of bytes; calls `advance` with removed files. The artefact is first
    renamed to a temporary name, which no command reads, and then deleted: a kill in between leaves a leftover that the next
    inventory lists. Links are removed, never their targets. Raises StoreError, with the artefact unchanged, if another
    process is writing it, it has changed since it was listed, or it cannot be renamed; and, with a leftover, if one of its
    files cannot be deleted.
    """
    if _is_gone(artefact):  # taking its lock would create the lock file again
        return 0
    with _held(artefact):
        if _is_gone(artefact):
            return 0
        size, _, changed = measure((artefact.path, *artefact.parts))
        if (size, changed) != (artefact.bytes, artefact.changed):
            raise StoreError(f"{artefact.path} has changed since it was listed", "run the command again")
        with writing(artefact.path):
            for path in (artefact.path, *artefact.parts):
                if os.path.lexists(path):
                    _delete(path if artefact.state == LEFTOVER else _set_aside(path), advance)
    with contextlib.suppress(OSError):  # for example, not empty
        if artefact.kind == "datasets":
            artefact.path.parent.rmdir()
    return size


def _is_gone(artefact: Artefact) -> bool:
    """Whether it is a leftover that was removed together with its artefact."""
    return artefact.state == LEFTOVER and not os.path.lexists(artefact.path)


@contextlib.contextmanager
def _held(artefact: Artefact) -> Iterator[None]:
    """Holds the artefact's lock, and removes the lock file at the end if its artefact is gone. Removing it is safe while it
    is held: a waiting process notices that the file has no name, and tries again. Windows cannot remove open files, so the
    lock files stay there.
    """
    lock = artefact.lock
    if lock is None or not lock.parent.is_dir():
        yield
        return
    with locked(lock):
        yield
        if not os.path.lexists(lock) and os.name != "nt":
            with contextlib.suppress(OSError):
                lock.with_name(f".{lock.name}.lock").unlink(missing_ok=True)


def _set_aside(path: Path) -> Path:
    """Renames it to a temporary name beside it that contains its own. Raises OSError."""
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    aside = path.with_name(f".{stem.lstrip('.')}{REMOVED}.{secrets.token_hex(4)}.tmp{suffix}")
    path.rename(aside)
    sync_folder(path.parent)
    return aside


def _delete(path: Path, advance: Callable[[int], None]) -> None:
    """Deletes a file, a link or a folder with all in it, following no links. Raises OSError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        advance(1)
        return
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            Path(folder, name).unlink(missing_ok=True)
            advance(1)
        for name in folders:
            inner = Path(folder, name)
            inner.unlink() if inner.is_symlink() else inner.rmdir()
    path.rmdir()
