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
except ImportError:  # Windows, whose locks filelock takes in a way of its own
    fcntl = None  # type: ignore[assignment]

#: Devices whose file systems are known to have locks.
_with_locks: set[int] = set()

_FLOCK = re.compile(r"FLOCK\s+\S+\s+WRITE\s+(\d+)\s+([0-9a-f]+):([0-9a-f]+):(\d+)")


#: What flock answers where a file system has no locks (Lustre without them, some NFS and ZFS; 524 is Linux' own ENOTSUPP).
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, 524}
#: Seconds that a file without an owner's name is given to get one: its process may be about to write it.
_PATIENCE = 10.0


class LockHeldError(Exception):
    """Somebody else holds a lock. `holder` says who, "" where that is not known; `file` stands for the lock where the file
    system has none, and is to be removed where its holder is gone without the system's knowing."""

    def __init__(self, holder: str, file: Path | None = None) -> None:
        super().__init__(holder)
        self.holder, self.file = holder, file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the writer's lock of the artefact `path`; its folder must exist.

    The lock file `.NAME.lock` stays behind, as removing it would let two writers in. Raises StoreError at once when
    another process (or another writer of this one) holds the lock, naming its process id where the system tells it.
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
    """Holds the lock of the file `lock_path`, for which it waits `wait` seconds. Where the file system has no locks, a file
    beside it that only one process can make stands for it, and a warning says so.

    Raises LockHeldError where another holds it, OSError where no file can be made.
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
    """Whether the file system that the folder is on has locks: tried on a file that nobody else sees. OSError where no file can
    be made."""
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
    """Holds `file`, made by this process alone and removed at the end. One of a process of this machine that is gone is
    replaced."""
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
    """Who made the file that stands for a lock; None where it is gone, then removed if need be."""
    try:
        process, _, host = file.read_text(encoding="utf-8").partition(" ")
        age = time.time() - file.stat().st_mtime
    except OSError:
        return None
    if not process.isdecimal():  # its maker has not written its name yet, or never will
        if age < _PATIENCE:
            return ""
    elif host != socket.gethostname() or _is_running(int(process)):
        return f"process {process}" + (f" on {host}" if host != socket.gethostname() else "")
    aside = file.with_name(f"{file.name}.{secrets.token_hex(4)}.tmp")
    with contextlib.suppress(OSError):  # of several only one can rename it
        file.rename(aside)
        aside.unlink()
    return None


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def lock_file(path: Path) -> Path:
    """The file whose lock stands for `path`, made where it is missing. StoreError where it cannot be made: waiting for it, as
    the lock does, would take a place that cannot be written for one that another process holds."""
    file = path.with_name(f".{path.name}.lock")
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o666))
    except OSError as error:
        check_writable(path)
        raise write_error(path, error) from error
    return file


def held_by(path: Path) -> str:
    """Who writes the artefact `path` at this moment: "process 123", "another process"; "" for nobody that is known of.

    The lock is not taken for it where the system has a table of locks (Linux), so that no writer is turned away by a look;
    that table does not tell of other machines, so whoever wants to write still takes the lock.
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
