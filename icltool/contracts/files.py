"""Files that lie in a folder or in a zip archive: `…/train2017/x.jpg`, or `…/train2017.zip/train2017/x.jpg`.

Every path of an example's image may be of either form. An archive is listed once per process, and its members are read with
positioned reads, so that threads and forked workers can share it.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
import zlib
from collections.abc import Collection, Iterator
from typing import BinaryIO, NamedTuple, cast

#: Bytes of the largest file that is read as a whole (4 GiB).
MOST_BYTES = 1 << 32
#: How many archives stay open; data sets have two to six.
_OPEN_ARCHIVES = 16
#: Members up to this many bytes are read at once and support seek; longer ones are streamed.
_AT_ONCE = 64 * 2**20
_BLOCK = 2**20
_HEADER_BYTES = 30
_ENCRYPTED = 0x1
_STORED, _DEFLATED = 0, 8


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """A binary file opened for reading: a plain file, or the member of a zip archive whose path is a prefix of `path`.
    Members above 64 MiB are streamed and do not support seek. Raises FileNotFoundError if there is neither, and OSError if
    the file cannot be read, is not a regular file (a pipe or a device could block or never end), the archive is not a zip
    archive, or the member is damaged or encrypted. A member's checksum is compared at its end.
    """
    name = os.fspath(path)
    try:
        return _regular(name)
    except (FileNotFoundError, NotADirectoryError):
        member = archive_and_member(name)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None
    return _archive(member[0]).open(member[1])


def read_whole(path: str | os.PathLike[str]) -> bytes:
    """The content of a plain file that is read as a whole: a table, a plan, a record. Raises OSError as `open_file` does,
    and if the file has more than MOST_BYTES."""
    name = os.fspath(path)
    with _regular(name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, and {MOST_BYTES:,} are read at most", name)
        return file.read()


def _regular(name: str) -> BinaryIO:
    """A plain file, opened; the caller closes it. OSError for anything else."""
    file = open(name, "rb", opener=_without_waiting)  # noqa: SIM115  Path.open costs more than the open itself
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", name)
    return file


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def file_exists(path: str | os.PathLike[str]) -> bool:
    """Whether `open_file` can open a file there; False for a member of an archive that cannot be read."""
    name = os.fspath(path)
    if os.path.isfile(name):  # noqa: PTH113  called for every image
        return True
    member = archive_and_member(name)
    try:
        return member is not None and member[1] in _archive(member[0]).members
    except OSError:
        return False


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(bytes, modification time in ns, or the checksum of an archive's member) of what `open_file` opens. Raises OSError."""
    name = os.fspath(path)
    try:
        status = os.stat(name)  # noqa: PTH116  called for every image
    except (FileNotFoundError, NotADirectoryError):
        in_archive = archive_and_member(name)
        member = _archive(in_archive[0]).members.get(in_archive[1]) if in_archive is not None else None
        if member is None:
            raise
        return member.size, member.crc
    return status.st_size, status.st_mtime_ns


def archive_and_member(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """(path of the zip archive, name of the member in it); None if no prefix of the path is a file ending in .zip. The
    member is "" if the path is the archive itself. Whether the archive has the member is not checked.
    """
    name = os.fspath(path).replace(os.sep, "/")
    lowered = name.lower()
    end = lowered.find(".zip")
    while end >= 0:
        end += len(".zip")
        if (end == len(name) or name[end] == "/") and os.path.isfile(name[:end]):  # noqa: PTH113  as above
            return name[:end], name[end:].strip("/")
        end = lowered.find(".zip", end)
    return None


def archive_members(archive: str | os.PathLike[str]) -> Collection[str]:
    """The names of all files in a zip archive. Raises OSError if it is missing or not a readable zip archive."""
    return _archive(os.fspath(archive)).members.keys()


class _Member(NamedTuple):
    """Where a member is: offset of its local header, bytes stored, bytes when read, CRC-32, method, general flags."""

    offset: int
    stored: int
    size: int
    crc: int
    method: int
    flags: int


class _Archive:
    """A zip archive open for positioned reads. It closes its file when the last user releases it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115
        try:
            self.members = self._listed()
        except BaseException:
            self._file.close()
            raise

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def open(self, name: str) -> BinaryIO:
        """The member as a file. Raises FileNotFoundError and OSError as `open_file` does."""
        member = self.members.get(name)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.path}/{name}")
        if member.flags & _ENCRYPTED:
            raise self.fault(name, "is encrypted")
        if member.method not in (_STORED, _DEFLATED):
            raise self.fault(name, f"is compressed by method {member.method}; stored and deflated members can be read")
        stream = _MemberStream(self, name, member, self._data_start(name, member))
        if member.size > _AT_ONCE:
            return io.BufferedReader(stream, _BLOCK)
        with stream:
            return io.BytesIO(stream.readall())

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; fewer at the end of the file."""
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)

    def fault(self, name: str, what: str) -> OSError:
        return OSError(errno.EIO, f"it {what}", f"{self.path}/{name}" if name else self.path)

    def _listed(self) -> dict[str, _Member]:
        import zipfile  # here, because every command imports the contracts

        try:
            with zipfile.ZipFile(self._file) as archive:
                return {
                    i.filename: _Member(
                        i.header_offset, i.compress_size, i.file_size, i.CRC, i.compress_type, i.flag_bits
                    )
                    for i in archive.infolist()
                    if not i.is_dir()
                }
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            raise self.fault("", f"is cut off or no zip archive ({error})") from error

    def _data_start(self, name: str, member: _Member) -> int:
        header = self.read_at(member.offset, _HEADER_BYTES)
        if len(header) < _HEADER_BYTES or header[:4] != b"PK\x03\x04":
            raise self.fault(name, "is damaged: its header is missing")
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return member.offset + _HEADER_BYTES + lengths


class _MemberStream(io.RawIOBase):
    """Reads one member from start to end, and compares its size and checksum there."""

    def __init__(self, archive: _Archive, name: str, member: _Member, start: int) -> None:
        self._archive, self._name, self._member = archive, name, member
        self._position, self._end = start, start + member.stored
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == _DEFLATED else None
        self._blocks = self._read_blocks()
        self._left = b""

    def readable(self) -> bool:
        return True

    def readall(self) -> bytes:
        content = b"".join([self._left, *self._blocks])
        self._left = b""
        return content

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        if not self._left:
            self._left = next(self._blocks, b"")
        part, self._left = self._left[: len(view)], self._left[len(view) :]
        view[: len(part)] = part
        return len(part)

    def _read_blocks(self) -> Iterator[bytes]:
        size, checksum = 0, 0
        for block in self._inflated():
            size += len(block)
            checksum = zlib.crc32(block, checksum)
            if size > self._member.size:
                break
            if block:
                yield block
        if size != self._member.size or checksum != self._member.crc:
            raise self._archive.fault(self._name, "is damaged: size or checksum is not the archive's")

    def _inflated(self) -> Iterator[bytes]:
        inflate = self._inflate
        while self._position < self._end:
            raw = self._archive.read_at(self._position, min(_BLOCK, self._end - self._position))
            if not raw:
                raise self._archive.fault(self._name, "is cut off")
            self._position += len(raw)
            if inflate is None:
                yield raw
                continue
            try:
                while raw and not inflate.eof:
                    yield inflate.decompress(raw, _BLOCK)
                    raw = inflate.unconsumed_tail
            except zlib.error as error:
                raise self._archive.fault(self._name, f"is damaged: {error}") from error
        if inflate is not None:
            yield inflate.flush()


#: Path -> (inode, bytes, modification time in ns of the archive as it was listed, archive), least recently used first.
_opened: dict[str, tuple[tuple[int, int, int], _Archive]] = {}
_opening = threading.Lock()


def _archive(path: str) -> _Archive:
    """The archive, listed again if the file has changed. Raises OSError."""
    status = os.stat(path)  # noqa: PTH116  called for every image
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    with _opening:
        known = _opened.pop(path, None)
        if known is None or known[0] != stamp:
            known = (stamp, _Archive(path))
            while len(_opened) >= _OPEN_ARCHIVES:
                del _opened[next(iter(_opened))]
        _opened[path] = known
        return known[1]


def _unlock_child() -> None:
    """Gives a forked worker a free lock, whichever thread held it."""
    global _opening
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_child)
