"""Checks of image folders, unpacked or in zip archives: missing images, damaged images, images of the wrong split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from icltool.components.datasets.official import counted, few
from icltool.contracts import (
    Progress,
    Ticker,
    archive_and_member,
    archive_members,
    file_stamp,
    keyed_generator,
    load_image,
)
from icltool.contracts.images import LIMIT_VARIABLE
from icltool.errors import DataError

#: Examples without their image: the data set is refused, or they are left out.
MissingImages = Literal["refuse", "skip"]

#: How many images of a split are opened if not all are verified.
SAMPLE = 50
_CHUNK = 512


def listing(folder: Path) -> frozenset[str]:
    """The names in a folder; empty if there is no such folder. Raises DataError if it cannot be read.

    For a folder within a zip archive, the names of its files.
    """
    try:
        location = archive_and_member(folder)
        if location is not None:
            start = f"{location[1]}/" if location[1] else ""
            below = (member[len(start) :] for member in archive_members(location[0]) if member.startswith(start))
            return frozenset(name for name in below if "/" not in name)
        with os.scandir(folder) as files:
            return frozenset(entry.name for entry in files)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}", "check its permissions") from error


def expect_images(
    annotations: Path, folder: Path, names: Sequence[str], other: Path, other_names: Sequence[str], hint: str
) -> None:
    """Raises DataError if `annotations` names images that are not in `folder`; only lists the folder.

    `other` is the other split's folder and `other_names` are the same images' names there: if none is in `folder`
    but some are in `other`, the annotations belong to the wrong split.
    """
    present = listing(folder)
    missing = [name for name in names if name not in present]
    if not missing:
        return
    if len(missing) == len(names):
        other_listing = listing(other)
        if any(name in other_listing for name in other_names):
            raise DataError(
                f"{annotations} belongs to the wrong split: its images are in {other.name}, not in {folder.name}", hint
            )
    raise DataError(f"{annotations} names {counted(len(missing), 'image')} missing from {folder}: {few(missing)}", hint)


def check_decoding(
    folder: Path, names: Sequence[str], part: str, hint: str, verify: bool, progress: Progress | None
) -> None:
    """Opens all images (`verify`) or a sample. `part` names the images, for example "train2014"."""
    if not verify:
        expect_readable(folder, sample(names, part), hint)
    elif progress is None:
        expect_readable(folder, names, hint)
    else:
        with progress.task(f"opening {part}", len(names), "images") as ticker:
            expect_readable(folder, names, hint, ticker)


def expect_readable(folder: Path, names: Sequence[str], hint: str, ticker: Ticker | None = None) -> None:
    """Decodes images fully, several at a time. Raises DataError, which names those that are truncated or not images."""
    broken: list[tuple[str, DataError]] = []
    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1)) as pool:
        for start in range(0, len(names), _CHUNK):
            part = names[start : start + _CHUNK]
            faults = pool.map(_fault, [folder / name for name in part])
            broken += [(name, fault) for name, fault in zip(part, faults, strict=True) if fault is not None]
            if ticker is not None:
                ticker.advance(len(part))
    if not broken:
        return
    first = broken[0][1]
    hint = next((str(fault.hint) for _, fault in broken if LIMIT_VARIABLE in str(fault.hint)), hint)
    if len(broken) == 1:
        raise DataError(first.message, hint)
    descriptions = [f"{name} ({_reason(fault)})" for name, fault in broken]
    raise DataError(f"{len(broken):,} images in {folder} cannot be read: {few(descriptions)}", hint)


def is_empty(image: str | Path) -> bool:
    """Whether an image file has no bytes, as after a failed download."""
    try:
        return file_stamp(image)[0] == 0
    except OSError:
        return False


def sample(names: Sequence[str], purpose: str) -> list[str]:
    """At most SAMPLE of the names, in order; the same names each time."""
    if len(names) <= SAMPLE:
        return list(names)
    picked = keyed_generator(0, f"images opened: {purpose}", len(names)).choice(len(names), SAMPLE, replace=False)
    return [names[i] for i in sorted(picked.tolist())]


def _fault(path: Path) -> DataError | None:
    """Why the image cannot be decoded."""
    try:
        load_image(str(path))
    except DataError as error:
        return error
    return None


def _reason(fault: DataError) -> str:
    """The reason in an image's error message, without the path."""
    reason = re.sub(r"^image .*? (?=cannot be read: |is |has |does )", "", fault.message)
    return reason.removeprefix("cannot be read: ")
