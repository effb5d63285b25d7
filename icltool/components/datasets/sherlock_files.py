"""The files of Sherlock: its records, and where the images of VCR and Visual Genome lie."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from icltool.components.datasets.images import listing
from icltool.components.datasets.json_stream import read_json
from icltool.components.datasets.official import one_line
from icltool.contracts import archive_and_member, archive_members
from icltool.errors import DataError

TRAIN = "sherlock_train_v1_1.json"
VALIDATION = "sherlock_val_with_split_idxs_v1_1.json"
_GET = "put the official file of Sherlock (version 1.1) there"
_NEEDED = "it needs inputs.image.url, inputs.bboxes with left, top, width and height, inputs.clue and instance_id"
#: Where each source's images may lie below the root: folders, or archives and folders within them.
_PLACES = {
    "vcr": ("vcr1images", "vcr1images.zip/vcr1images", "vcr1images.zip"),
    "vg": (
        "vg/images",
        "vg",
        *(f"{above}/{name}" for above in ("vg", "vg/images") for name in ("images.zip", "images2.zip")),
    ),
}

Box = tuple[int, int, int, int]


class Observation(NamedTuple):
    """A record: a clue in regions of an image, and an inference.

    `image` is its place in its release, "vcr1images/MOVIE/NAME" or "VG_100K/NAME", and `source` "vcr" or "vg". `boxes` are
    (left, top, width, height) in pixels. `size` (width, height) is the image's as the record tells it, () where it does
    not; `chunk` the part of the validation file, -1 for none.
    """

    instance: str
    image: str
    source: str
    boxes: tuple[Box, ...]
    clue: str
    inference: str
    size: tuple[int, ...]
    chunk: int

    @property
    def region(self) -> tuple[str, tuple[Box, ...]]:
        """What two inferences about the same regions of the same image have in common."""
        return self.image, tuple(sorted(self.boxes))


def read_observations(path: Path) -> list[Observation | str]:
    """The records in a file, in order; in place of an unusable one, the reason (for example "without an inference").

    Raises DataError that names the file, and the first entry that is not a record.
    """
    records = read_json(path, _GET, lambda key, entry: _observation(entry))
    if not isinstance(records, list):
        raise DataError(f"{path} is not a list of records", _GET)
    for position, entry in enumerate(records):
        if entry is None:
            raise DataError(f"{path}: entry {position} is not a record of Sherlock", _NEEDED)
    return records


def _observation(entry: object) -> Observation | str | None:
    """The entry as an Observation, or the reason why it is unusable; None if it is not a record."""
    if not isinstance(entry, dict):
        return None
    try:
        inputs = entry["inputs"]
        image, clue, instance = inputs["image"], inputs["clue"], entry["instance_id"]
        url, boxes = image["url"], [_box(box) for box in inputs["bboxes"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    targets = entry.get("targets")
    inference = targets.get("inference") if isinstance(targets, dict) else None
    parts = url.split("/")[-2:] if isinstance(url, str) else []
    if not isinstance(clue, str) or not isinstance(instance, str | int) or not isinstance(inference, str | None):
        return None
    if len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        return None
    if not inference or not inference.strip():
        return "without an inference"
    if not clue.strip():
        return "without a clue"
    size = tuple(side for name in ("width", "height") if type(side := image.get(name)) is int)
    inside = [_within(box, size) for box in boxes]
    if any(box is None for box in inside):
        return "with a region outside of its image"
    chunk = entry.get("split_idx")
    of_vg = "VG_" in url
    return Observation(
        str(instance),
        sys.intern("/".join(parts if of_vg else ["vcr1images", *parts])),
        "vg" if of_vg else "vcr",
        tuple(box for box in inside if box is not None),
        sys.intern(one_line(clue)),
        sys.intern(one_line(inference)),
        size if len(size) == 2 else (),
        chunk if type(chunk) is int else -1,
    )


def _box(record: Mapping[str, float]) -> Box:
    """(left, top, width, height) as whole pixels. KeyError, TypeError or ValueError for anything else."""
    left, top, width, height = (round(record[name]) for name in ("left", "top", "width", "height"))
    return left, top, width, height


def _within(box: Box, size: tuple[int, ...]) -> Box | None:
    """The box with no negative corner; None where nothing of it is in an image of `size`."""
    left, top, width, height = box
    width, height = width + min(left, 0), height + min(top, 0)
    left, top = max(left, 0), max(top, 0)
    inside = len(size) < 2 or (left < size[0] and top < size[1])
    return (left, top, width, height) if width > 0 and height > 0 and inside else None


class Images:
    """Finds images in the folders and archives of VCR and Visual Genome below `start`."""

    def __init__(self, start: Path) -> None:
        self.start = start
        self._bases = {source: [start / place for place in places] for source, places in _PLACES.items()}
        self._names: dict[Path, frozenset[str]] = {}

    def find(self, observation: Observation) -> str:
        """The path of the image, "" where it is not there."""
        relative = observation.image.removeprefix("vcr1images/") if observation.source == "vcr" else observation.image
        for base in self._bases[observation.source]:
            if self._holds(base, relative):
                return str(base / relative)
        return ""

    def archives(self) -> tuple[Path, ...]:
        """The archives that are there."""
        locations = (archive_and_member(base) for bases in self._bases.values() for base in bases)
        return tuple(dict.fromkeys(Path(location[0]) for location in locations if location is not None))

    def _holds(self, base: Path, relative: str) -> bool:
        if base.suffix == ".zip" or base.parent.suffix == ".zip":
            within = archive_and_member(base)
            if within is None:
                return False
            try:
                members = archive_members(within[0])
            except OSError as error:
                raise DataError(
                    f"{within[0]} cannot be read: {error.strerror or error}", "get the archive again"
                ) from error
            return (f"{within[1]}/{relative}" if within[1] else relative) in members
        folder = (base / relative).parent
        if folder not in self._names:
            self._names[folder] = listing(folder)
        return relative.rpartition("/")[2] in self._names[folder]
