"""Atomic writes, with errors that name the cause."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icltool.contracts.files import read_whole
from icltool.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
#: Temporary names of `replace_file`.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\.[^.]+)?")
_HDF5_ERRNO = re.compile(r"\berrno = (\d+)")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into a StoreError that names `path`, with a hint.

    A full disk gives "disk is full: PATH", a missing permission or a read-only file system "PATH is read-only". The block
    should contain the write alone: every OSError in it counts as a failure to write `path`.
    """
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: Path, error: OSError) -> StoreError:
    """The StoreError for an OSError while writing `path`."""
    code = _error_number(error)
    if code in _FULL:
        reason = "" if code == errno.ENOSPC else f" ({os.strerror(code)})"
        return StoreError(f"disk is full: {path}{reason}", "free some space and run the command again")
    if code in _NOT_ALLOWED:
        return StoreError(f"{path} is read-only ({os.strerror(code)})", "make its folder writable, or use another one")
    reason = os.strerror(code) if code else str(error)
    other = f": {error.filename}" if error.filename and Path(str(error.filename)) != path else ""
    return StoreError(
        f"{path} cannot be written: {reason}{other}", "check the path and the disk, and run the command again"
    )


def check_writable(path: Path) -> None:
    """Raises StoreError if no file can be created in the folder of `path`, or in its nearest existing parent. Call it
    before long work whose result goes there. It creates a file and removes it."""
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        # an unnamed file if the system has them: a kill leaves nothing behind
        tempfile.TemporaryFile(dir=folder, prefix=".", suffix=".tmp").close()
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written: no file can be created there ({os.strerror(error.errno or 0)})",
            "give another place, or make it writable",
        ) from error


def _error_number(error: OSError) -> int:
    """The errno; errors that HDF5 raises late have it only in their text."""
    if error.errno:
        return error.errno
    match = _HDF5_ERRNO.search(str(error))
    return int(match.group(1)) if match else 0


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to; on success it is fsynced and renamed to `path`. If the block
    raises anything, the temporary file is removed and `path` is unchanged. The temporary name begins with "." and ends with
    the suffix of `path` (some writers choose the format by it). Folders are created as needed. Raises StoreError as
    `writing` does.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def same_file(source: Path, target: Path) -> None:
    """Links `target` to the file `source`, replacing what was there; copies it if the file system has no hard links. For
    files that are only ever replaced, never changed. Raises StoreError as `writing` does."""
    with replace_file(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def take_place(temporary: Path, folder: Path) -> None:
    """Renames the folder `temporary`, which is beside `folder`, to `folder`. The old folder is renamed before it is
    removed, so that it is never there in part. The caller must hold the lock. Raises OSError."""
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder_leftovers(folder: Path, manifest: str) -> None:
    """Removes what killed processes left beside `folder`. If they had renamed the folder itself and it is complete, which
    the file `manifest` shows, it gets its name back. The caller must hold the lock. Raises OSError."""
    pattern = re.compile(re.escape(f".{folder.name}.") + r"[0-9a-f]{8}\.tmp\Z")
    left = [path for path in folder.parent.iterdir() if path.is_dir() and pattern.match(path.name)]
    whole = [path for path in left if (path / manifest).is_file()]
    if whole and not folder.exists():
        whole[0].rename(folder)
        left.remove(whole[0])
    for path in left:
        shutil.rmtree(path)


def remove_temporary_files(folder: Path) -> None:
    """Removes the temporary files that killed processes left in a folder. The caller must hold the lock for everything
    written there. Raises OSError."""
    if folder.is_dir():
        for file in folder.iterdir():
            if _TEMPORARY.fullmatch(file.name) and not file.is_dir():
                file.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Removes temporary files that killed processes left beside `path`. The caller must hold the lock of `path`."""
    pattern = re.compile(re.escape(f".{path.stem}.") + r"[0-9a-f]{8}\.tmp" + re.escape(path.suffix) + r"\Z")
    for file in path.parent.iterdir():
        if pattern.match(file.name):
            file.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flushes `path` to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` durable, if the system can open folders (Windows cannot, and needs no such call)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 with "\\n" line ends, atomically. Raises StoreError as `writing` does."""
    with replace_file(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: Path, obj: object) -> None:
    """Writes `obj` as indented JSON, atomically.

    Raises StoreError as `writing` does, TypeError for values that JSON does not support.
    """
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file. StoreError if it is missing, unreadable, truncated or malformed."""
    try:
        return json.loads(read_whole(path))
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist", "run the command that makes it") from error
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {error.strerror or error}", "check the path and its permissions"
        ) from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise StoreError(
            f"{path} is truncated or malformed: {error}", "remove it and run the command that makes it again"
        ) from error
