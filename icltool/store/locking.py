"""One writer per artefact. The operating system drops the lock when the process dies, however it dies."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from icltool.errors import StoreError
from icltool.store.atomic import check_writable, write_error

_FLOCK = re.compile(r"FLOCK\s+\S+\s+WRITE\s+(\d+)\s+([0-9a-f]+):([0-9a-f]+):(\d+)")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the writer's lock of the artefact `path`; its folder must exist.

    The lock file `.NAME.lock` stays behind, as removing it would let two writers in. Raises StoreError at once when
    another process (or another writer of this one) holds the lock, naming its process id where the system tells it.
    """
    import filelock

    lock_path = lock_file(path)
    lock = filelock.FileLock(lock_path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        holder = _holder(lock_path)
        by = f"process {holder}" if holder else "another process"
        way = f"wait for it, or stop it (kill {holder})" if holder else "wait for it, or stop it"
        raise StoreError(f"{path} is being written by {by}", way) from error
    except OSError as error:
        raise write_error(path, error) from error
    except NotImplementedError as error:
        raise StoreError(f"the file system of {path} has no file locks", "use a workspace on another one") from error
    try:
        yield
    finally:
        lock.release()


def lock_file(path: Path) -> Path:
    """The file whose lock stands for `path`, made where it is missing. StoreError where it cannot be made: waiting for it, as
    the lock does, would take a place that cannot be written for one that another process holds."""
    found = path.with_name(f".{path.name}.lock")
    try:
        os.close(os.open(found, os.O_RDWR | os.O_CREAT, 0o666))
    except OSError as error:
        check_writable(path)
        raise write_error(path, error) from error
    return found


def held_by(path: Path) -> str:
    """Who writes the artefact `path` at this moment: "process 123", "another process"; "" for nobody that is known of.

    The lock is not taken for it where the system has a table of locks (Linux), so that no writer is turned away by a look;
    that table does not tell of other machines, so whoever wants to write still takes the lock.
    """
    lock_path = path.with_name(f".{path.name}.lock")
    if not lock_path.exists():
        return ""
    if Path("/proc/locks").exists():
        holder = _holder(lock_path)
        return f"process {holder}" if holder else ""
    try:
        with locked(path):
            return ""
    except StoreError as error:
        return "another process" if "is being written" in error.message else ""


def _holder(lock_path: Path) -> int | None:
    """The process that holds the lock, from Linux' table of locks; None where it cannot be known."""
    try:
        status = lock_path.stat()
        table = Path("/proc/locks").read_text()
    except OSError:
        return None
    for process, major, minor, inode in _FLOCK.findall(table):
        device = os.makedev(int(major, 16), int(minor, 16))
        if int(inode) == status.st_ino and device == status.st_dev and int(process) > 0:
            return int(process)
    return None
