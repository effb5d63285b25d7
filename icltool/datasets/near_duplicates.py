"""Near-duplicate groups: an optional file `near_duplicates.json` beside the annotations of any data set.

It holds {"train": {IMAGE_ID: GROUP, …}, "val": {…}}, image ids as texts (JSON has no other keys), groups as any texts.
Images of one group never serve as demonstrations of one another, and confidence intervals are clustered by group. An
image that is not listed is in no group.
"""

from __future__ import annotations

from pathlib import Path

from icltool.datasets.official import read_annotations
from icltool.errors import DataError

FILE = "near_duplicates.json"


def read_groups(folder: Path, split: str) -> dict[int, str]:
    """The group of each listed image id of a split ("train" or "val"); empty when the folder has no such file.

    Raises DataError naming the file when it is malformed.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    form = 'it must read {"train": {IMAGE_ID: GROUP, ...}, "val": {...}}; without the file there are no groups'
    listed = read_annotations(path, form).get(split, {})
    if not isinstance(listed, dict):
        raise DataError(f"{path}: {split!r} is not a table of image ids", form)
    groups: dict[int, str] = {}
    for image_id, group in listed.items():
        if not image_id.isascii() or not image_id.isdigit() or not isinstance(group, str):
            raise DataError(f"{path}: {split!r} has the entry {image_id!r}: {group!r}", form)
        groups[int(image_id)] = group
    return groups
