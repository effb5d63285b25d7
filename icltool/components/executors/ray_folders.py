"""Temporary folders that are locked for as long as a process uses them, so that the next run can tell which are left over."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed process left is not removed there
    fcntl = None  # type: ignore[assignment]

#: Whether the system has such locks.
LOCKS = fcntl is not None
#: The file in a folder that is locked.
IN_USE = "in-use.lock"


def hold(folder: Path, alone: bool = False) -> int | None:
    """Locks a folder until this process ends, or closes the descriptor; `alone` lets no other process hold it.

    None where somebody removed it meanwhile, or the system has no locks. Raises OSError where it cannot be written.
    """
    if fcntl is None:
        return None
    handle = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if os.fstat(handle).st_ino == (folder / IN_USE).stat().st_ino:
            return handle
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def new_held(base: Path, prefix: str) -> tuple[Path, int | None]:
    """A new folder of a random name, locked, and the descriptor that holds it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
        with suppress(FileNotFoundError):
            handle = hold(folder, alone=True)
            if handle is not None or fcntl is None:
                return folder, handle


def remove_unused(base: Path, prefix: str) -> None:
    """Removes the folders of this prefix that are this user's own, have the lock file, and are held by no process.

    The name alone says nothing: links, folders of others, and folders without the file stay.
    """
    if fcntl is None:
        return
    for folder in base.glob(f"{prefix}*"):
        with suppress(OSError):
            _remove_if_unused(folder)


def _remove_if_unused(folder: Path) -> None:
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(place).st_uid != os.geteuid():
            return
        handle = os.open(IN_USE, os.O_RDWR | os.O_NOFOLLOW, dir_fd=place)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
    finally:
        os.close(place)
