"""Stamps of image files at the time when a data set was prepared, so that changed images are noticed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from icltool.contracts import IntArray, Progress, file_stamp, image_file, keyed_generator, open_file, read_whole
from icltool.errors import StoreError

#: A file in the folder of a prepared data set: int64 [P, 3], a row for each of its image files, sorted by path: size in
#: bytes, time of change in ns (in an archive, the checksum; 0 if it does not count), and a hash of the content (0: not
#: read).
FILE = "pictures.npy"
#: The number of images that a stage checks.
SAMPLE = 1000
_GONE = -1


def image_files(references: Iterable[str]) -> list[str]:
    """The files of images, without duplicates, sorted."""
    return sorted({image_file(reference) for reference in references if reference})


def stamps(files: Sequence[str], own: Path, content: Progress | None = None) -> IntArray:
    """The current stamps of `files`, as in FILE. Times of files below the folder `own`, which icltool wrote itself, do not
    count. With `content` all files are read."""
    rows = np.zeros((len(files), 3), dtype=np.int64)
    ours = f"{own}/"
    for row, file in enumerate(files):
        try:
            size, changed = file_stamp(file)
        except OSError:
            rows[row, :2] = _GONE
        else:
            rows[row, :2] = size, 0 if file.startswith(ours) else changed
    if content is not None:
        with content.task("reading images", len(files), "images") as ticker:
            for row, file in enumerate(files):
                rows[row, 2] = _content(file)
                ticker.advance()
    return rows


def differing(before: IntArray, now: IntArray) -> IntArray:
    """The rows, int64, in which two arrays of stamps of the same files differ: by content if both have it, else by size and
    by time if both have one."""
    known = (before != 0) & (now != 0)
    other = known & (before != now)
    changed = np.where(known[:, 2], other[:, 2], other[:, 1])
    return np.flatnonzero((before[:, 0] != now[:, 0]) | changed).astype(np.int64)


def read_stamps(folder: Path, count: int) -> IntArray | None:
    """The stamps of a prepared data set with `count` images; None if there are none, as in data sets of earlier
    versions."""
    try:
        rows = np.load(io.BytesIO(read_whole(folder / FILE)), allow_pickle=False)
    except Exception:  # numpy's parser may raise anything for a damaged header
        return None
    return rows if rows.dtype == np.int64 and rows.shape == (count, 3) else None


def check_stamps(folder: Path, files: Sequence[str], own: Path, again: str) -> None:
    """Raises StoreError if images of a prepared data set have changed since; a sample of them is checked. Missing images
    are left to the code that needs them."""
    before = read_stamps(folder, len(files))
    if before is None or not len(files):
        return
    rows = np.arange(len(files))
    if len(files) > SAMPLE:
        rows = np.sort(keyed_generator(0, "pictures.stamps", len(files)).choice(len(files), SAMPLE, replace=False))
    part = [files[row] for row in rows.tolist()]
    now = stamps(part, own)
    looked = f" of {len(part):,} that were looked at" if len(part) < len(files) else ""
    changed = differing(before[rows], now)
    changed = changed[now[changed, 0] != _GONE]
    if len(changed):
        raise StoreError(
            f"{len(changed):,} image{'s' * (len(changed) > 1)}{looked} changed since the data set was prepared: "
            f"{part[changed[0]]}{' and others' * (len(changed) > 1)}",
            again,
        )


def _content(file: str) -> int:
    """A hash of the file's bytes, never 0; 0 if it cannot be read."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        with open_file(file) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError:
        return 0
    return int.from_bytes(digest.digest(), "big", signed=True) or 1
