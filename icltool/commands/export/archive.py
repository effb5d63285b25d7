"""Archives that are the same bytes for the same content, written with progress."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import BinaryIO, cast

from icltool.contracts import Progress
from icltool.contracts.progress import Ticker
from icltool.store.atomic import replace_file

#: Weights hardly compress, at any level.
_LEVEL = 1
_MEGABYTE = 1 << 20


def write_archive(target: Path, folder: Path, root: str, progress: Progress) -> None:
    """All files below `folder` as a tar.gz whose members are called `root/…`: sorted by name, without times, owners and
    permissions of this machine. It is written atomically. StoreError if it cannot be written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in files)
    with (
        progress.task(f"writing {target.name}", max(1, total // _MEGABYTE), "MB") as ticker,
        replace_file(target) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        counted = _Counted(ticker)
        for path in files:
            member = tarfile.TarInfo(f"{root}/{path.relative_to(folder).as_posix()}")
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(member, cast(BinaryIO, counted.reading(file)))


class _Counted(io.RawIOBase):
    """A file that is read through it; what was read advances the ticker, by megabytes."""

    def __init__(self, ticker: Ticker) -> None:
        self._ticker, self._bytes, self._reported = ticker, 0, 0
        self._file: BinaryIO | None = None

    def reading(self, file: BinaryIO) -> _Counted:
        self._file = file
        return self

    def read(self, size: int = -1) -> bytes:
        assert self._file is not None
        block = self._file.read(size)
        self._bytes += len(block)
        if (done := self._bytes // _MEGABYTE) > self._reported:
            self._ticker.advance(done - self._reported)
            self._reported = done
        return block
