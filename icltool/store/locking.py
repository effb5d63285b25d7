"""One writer per artefact. The operating system drops the lock when the process dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from icltool.errors import IclWarning, StoreError
from icltool.store.atomic import check_writable, write_error

try:
    import fcntl
except ImportError:  # Windows, where filelock uses other locks
    fcntl = None  # type: ignore[assignment]

#: Devices whose file systems are known to have locks.
_with_locks: set[int] = set()

_FLOCK = re.compile(r"FLOCK\s+\S+\s+WRITE\s+(\d+)\s+([0-9a-f]+):([0-9a-f]+):(\d+)")


#: Errors of flock on a file system without locks (Lustre without them, some NFS and ZFS; 524 is Linux's own ENOTSUPP).
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, 524}
#: Seconds to wait for a file without an owner's name to get one: its process may be about to write it.
_PATIENCE = 10.0


class LockHeldError(Exception):
    """Another process holds a lock. `holder` names it, "" if unknown; `file` is the file used as the lock on a file system
    without locks, to be removed by hand if its holder is gone."""

    def __init__(self, holder: str, file: Path | None = None) -> None:
        super().__init__(holder)
        self.holder, self.file = holder, file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the writer's lock of the artefact `path`; its folder must exist.

    The lock file `.NAME.lock` is not removed, since that could admit two writers. Raises StoreError at once if another
    process (or another writer in this one) holds the lock, with its process id if the system reports it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(lock_file(path)))
        except LockHeldError as error:
            by = error.holder or "another process"
            kill = f" (kill {by.split()[1]})" if by.startswith("process ") and " on " not in by else ""
            gone = f"; where it is gone, remove {error.file}" if error.file is not None else ""
            raise StoreError(f"{path} is being written by {by}", f"wait for it, or stop it{kill}{gone}") from error
        except OSError as error:
            raise write_error(path, error) from error
        yield


@contextlib.contextmanager
def held(lock_path: Path, wait: float = 0.0) -> Iterator[None]:
    """Holds the lock of the file `lock_path`, waiting for it up to `wait` seconds. On a file system without locks, an
    exclusively created file beside it replaces the lock, with a warning. Raises LockHeldError if another process holds it,
    OSError if no file can be created.
    """
    import filelock

    if not _has_locks(lock_path.parent):
        message = f"the file system of {lock_path.parent} has no locks; lock files replace them"
        warnings.warn(message, IclWarning, stacklevel=3)
        with _exclusive_file(lock_path.with_name(f"{lock_path.name}.held"), wait):
            yield
        return
    lock = filelock.FileLock(lock_path)
    try:
        lock.acquire(timeout=wait)
    except filelock.Timeout as error:
        holder = _holder(lock_path)
        raise LockHeldError(f"process {holder}" if holder else "") from error
    try:
        yield
    finally:
        lock.release()


def _has_locks(folder: Path) -> bool:
    """Whether the folder's file system has locks, tested with an unnamed file. OSError if no file can be created."""
    device = folder.stat().st_dev
    if fcntl is not None and device not in _with_locks:
        with tempfile.TemporaryFile(dir=folder, prefix=".", suffix=".tmp") as probe:
            try:
                fcntl.flock(probe.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    return False
        _with_locks.add(device)
    return True


@contextlib.contextmanager
def _exclusive_file(file: Path, wait: float) -> Iterator[None]:
    """Holds `file`, which this process creates exclusively and removes at the end. A file of a process of this machine that
    is gone is replaced."""
    until = time.monotonic() + wait
    while True:
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            holder = _owner(file)
            if holder is None:
                continue
            if time.monotonic() >= until:
                raise LockHeldError(holder, file) from None
            time.sleep(0.05)
            continue
        try:
            os.write(descriptor, f"{os.getpid()} {socket.gethostname()}".encode())
        finally:
            os.close(descriptor)
        break
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def _owner(file: Path) -> str | None:
    """The process that created the file used as a lock; None if the process is gone, in which case the file is removed."""
    try:
        process, _, host = file.read_text(encoding="utf-8").partition(" ")
        age = time.time() - file.stat().st_mtime
    except OSError:
        return None
    if not process.isdecimal():  # its creator has not written its name yet, or never will
        if age < _PATIENCE:
            return ""
    elif host != socket.gethostname() or _is_running(int(process)):
        return f"process {process}" + (f" on {host}" if host != socket.gethostname() else "")
    aside = file.with_name(f"{file.name}.{secrets.token_hex(4)}.tmp")
    with contextlib.suppress(OSError):  # only one of several processes can rename it
        file.rename(aside)
        aside.unlink()
    return None


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def lock_file(path: Path) -> Path:
    """The lock file of `path`, created if it is missing. StoreError if it cannot be created: waiting for the lock would
    mistake an unwritable folder for a lock held by another process."""
    file = path.with_name(f".{path.name}.lock")
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o666))
    except OSError as error:
        check_writable(path)
        raise write_error(path, error) from error
    return file


def held_by(path: Path) -> str:
    """The process that is writing the artefact `path` now: "process 123", "another process"; "" if none is known. On
    systems with a table of locks (Linux) the lock is not taken, so that the query never turns a writer away; the table does
    not cover other machines, so a writer must still take the lock.
    """
    lock_path = path.with_name(f".{path.name}.lock")
    if not lock_path.exists():
        return ""
    if (alone := lock_path.with_name(f"{lock_path.name}.held")).exists():
        return "another process" if (owner := _owner(alone)) == "" else owner or ""
    if Path("/proc/locks").exists():
        holder = _holder(lock_path)
        return f"process {holder}" if holder else ""
    try:
        with locked(path):
            return ""
    except StoreError as error:
        return "another process" if isinstance(error.__cause__, LockHeldError) else ""


def _holder(lock_path: Path) -> int | None:
    """The process that holds the lock, from Linux's table of locks; None if unknown."""
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
