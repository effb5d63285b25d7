"""An append-only journal beside an artefact: the records finished since the artefact was last written as a whole.

A journal is a magic number and records; a record is the length of its payload (uint32), a CRC-32 of length and payload
(uint32), and the payload. The first record is the artefact's identity as JSON. Numbers are little-endian.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from icltool.errors import StoreError
from icltool.store.atomic import replace_file, sync_folder, writing

MAGIC = b"ICLJRNL1"
_FRAME = struct.Struct("<II")
_PIECE = 1 << 20
_SYNC_SECONDS = 5.0


class Entry(NamedTuple):
    """Where a record's payload lies: byte offset and length."""

    offset: int
    length: int


def journal_path(artefact: Path) -> Path:
    """`.NAME.journal` beside the artefact."""
    return artefact.with_name(f".{artefact.name}.journal")


class Journal:
    """A journal opened for reading or appending. `identity` is that of the artefact, `entries` its complete records.
    Opening checks every record; anything after the last complete record is a torn write, which a writer cuts off and a
    reader ignores. Once `append` has returned, a kill of the process cannot lose the record; a power failure can lose those
    of the last few seconds. Raises StoreError for a file that is not a journal.
    """

    def __init__(self, path: Path, writable: bool = False) -> None:
        self.path = path
        self.writable = writable
        with writing(path) if writable else reading_journal(path):
            self._file = path.open("r+b" if writable else "rb", buffering=0)
        try:
            self.identity, self.entries, self._end = self._scan()
            if writable:
                with writing(path):
                    self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()

    @classmethod
    def create(cls, path: Path, identity: Mapping[str, object]) -> Journal:
        """A new, empty journal in place of any other; it appears with its identity or not at all."""
        with replace_file(path) as temporary:
            temporary.write_bytes(MAGIC + _framed(json.dumps(dict(identity), sort_keys=True).encode()))
        return cls(path, writable=True)

    def append(self, payload: bytes) -> Entry:
        """Adds a record of 1 to 2**32 - 1 bytes.

        If it fails (StoreError, for example with a full disk), the journal is unchanged.
        """
        if not 0 < len(payload) < 1 << 32:
            raise ValueError(f"a journal record has 1 to 2**32 - 1 bytes, not {len(payload)}")
        frame = memoryview(_framed(payload))
        with writing(self.path):
            try:
                self._file.seek(self._end)
                while frame:
                    frame = frame[self._file.write(frame) or 0 :]
            except BaseException:  # KeyboardInterrupt too: a torn record may only stand at the very end
                self._file.truncate(self._end)
                raise
            entry = Entry(self._end + _FRAME.size, len(payload))
            self._end += _FRAME.size + len(payload)
            self.entries.append(entry)
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                self.sync()
        return entry

    def read(self, entry: Entry, length: int | None = None) -> bytes:
        """The payload of a record, or its first `length` bytes."""
        with reading_journal(self.path):
            return self._read(entry.offset, entry.length if length is None else min(length, entry.length))

    def clear(self) -> None:
        """Drops every record."""
        if self.entries:
            start = self.entries[0].offset - _FRAME.size
            with writing(self.path):
                self._file.truncate(start)
            self._end, self.entries = start, []

    def sync(self) -> None:
        """Makes the operating system write the appended records to the disk."""
        with writing(self.path):
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Syncs what a writer appended, and closes the file."""
        try:
            if self.writable and not self._file.closed:
                self.sync()
        finally:
            self._file.close()

    def remove(self) -> None:
        """Closes the file and removes it."""
        self._file.close()
        remove_journal(self.path)

    def _scan(self) -> tuple[dict[str, object], list[Entry], int]:
        """(identity, entries, offset after the last complete record)."""
        with reading_journal(self.path):
            size = os.fstat(self._file.fileno()).st_size
            if self._read(0, min(len(MAGIC), size)) != MAGIC:
                raise StoreError(f"{self.path} is not a journal of icltool", "remove it")
            entries = list(self._records(len(MAGIC), size))
            try:
                identity = json.loads(self._read(*entries[0]))
                if not isinstance(identity, dict):
                    raise ValueError(identity)
            except (IndexError, ValueError) as error:
                raise StoreError(f"{self.path} is damaged: its first record cannot be read", "remove it") from error
        last = entries[-1]
        return identity, entries[1:], last.offset + last.length

    def _records(self, start: int, size: int) -> Iterator[Entry]:
        """Complete records from `start` on, up to the first that is truncated or has a wrong CRC."""
        while start + _FRAME.size < size:
            head = self._read(start, _FRAME.size)
            length, expected = _FRAME.unpack(head)
            entry = Entry(start + _FRAME.size, length)
            if length == 0 or entry.offset + length > size:
                return
            crc = zlib.crc32(head[:4])
            for position in range(entry.offset, entry.offset + length, _PIECE):
                crc = zlib.crc32(self._read(position, min(_PIECE, entry.offset + length - position)), crc)
            if crc != expected:
                return
            yield entry
            start = entry.offset + length

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        pieces: list[bytes] = []
        while length > 0:
            piece = self._file.read(length)
            if not piece:
                raise StoreError(f"{self.path} was truncated while it was read", "run the command again")
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


@contextlib.contextmanager
def reading_journal(path: Path) -> Iterator[None]:
    """Turns an OSError while reading `path` into a StoreError; lets FileNotFoundError pass."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}", "check its permissions") from error


def remove_journal(path: Path) -> None:
    """Removes the journal at `path` if there is one."""
    with writing(path):
        if path.exists():
            path.unlink()
            sync_folder(path.parent)


def _framed(payload: bytes) -> bytes:
    length = struct.pack("<I", len(payload))
    return length + struct.pack("<I", zlib.crc32(payload, zlib.crc32(length))) + payload
