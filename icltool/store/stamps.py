"""What images on disk were when a data set was prepared, so that others at their places are noticed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from icltool.contracts import IntArray, Progress, file_stamp, image_file, keyed_generator, open_file, read_whole
from icltool.errors import StoreError

#: In the folder of a prepared data set: int64 [P, 3], a row for each of its image files, sorted by path: size in bytes,
#: time of change in ns (in an archive the checksum; 0 where it does not count), and a hash of the content (0: not read).
FILE = "pictures.npy"
#: How many images a stage looks at.
SAMPLE = 1000
_GONE = -1


def image_files(references: Iterable[str]) -> list[str]:
    """The files of images, each once, sorted."""
    return sorted({image_file(reference) for reference in references if reference})


def stamps(files: Sequence[str], own: Path, content: Progress | None = None) -> IntArray:
    """What `files` are now, as FILE has it. Times of files below the folder `own`, which icltool wrote itself, do not count.
    With `content` all of them are read."""
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
    """int64: the rows of two arrays of stamps of the same files that are of other images. The content counts where both have
    it, else size and time, as far as both have one."""
    known = (before != 0) & (now != 0)
    other = known & (before != now)
    changed = np.where(known[:, 2], other[:, 2], other[:, 1])
    return np.flatnonzero((before[:, 0] != now[:, 0]) | changed).astype(np.int64)


def read_stamps(folder: Path, count: int) -> IntArray | None:
    """The stamps of a prepared data set with `count` images; None where there are none, as in data sets of before."""
    try:
        rows = np.load(io.BytesIO(read_whole(folder / FILE)), allow_pickle=False)
    except Exception:  # numpy's parser of damaged headers raises what it likes
        return None
    return rows if rows.dtype == np.int64 and rows.shape == (count, 3) else None


def check_stamps(folder: Path, files: Sequence[str], own: Path, again: str) -> None:
    """StoreError where images of a prepared data set have changed since; a sample of them is looked at. One that is missing
    is for whoever needs it to tell."""
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
    """A hash of the file's bytes, never 0; 0 where it cannot be read."""
    digest = hashlib.blake2b(digest_size=8)
    try:
        with open_file(file) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError:
        return 0
    return int.from_bytes(digest.digest(), "big", signed=True) or 1
