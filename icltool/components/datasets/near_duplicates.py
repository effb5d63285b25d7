"""Near-duplicate groups: an optional file `near_duplicates.json` beside the annotations of any data set.

It holds {"train": {IMAGE_ID: GROUP, …}, "val": {…}}, image ids as strings (JSON has no other keys), groups as any strings.
Images of one group never serve as demonstrations of one another, and confidence intervals are clustered by group. An
image that is not listed is in no group.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from icltool.components.datasets.official import read_annotations
from icltool.components.datasets.places import on_disk
from icltool.errors import DataError

FILE = "near_duplicates.json"


def groups_file(*annotations: Path) -> tuple[Path, ...]:
    """The file of groups beside the first of these annotation files that has one (for a file in an archive, beside the
    archive); empty or one path."""
    beside = (path.parent / FILE for path in on_disk(annotations))
    return tuple(islice((path for path in beside if path.exists()), 1))


def read_groups(annotations: Path, split: str) -> dict[int, str]:
    """The group of each listed image id of our `split` ("validation" is the file's "val"); empty without such a file
    beside `annotations`.

    Raises DataError, which names the file, if it is malformed.
    """
    for path in groups_file(annotations):
        return _groups(path, "val" if split == "validation" else split)
    return {}


def _groups(path: Path, split: str) -> dict[int, str]:
    form = 'it must read {"train": {IMAGE_ID: GROUP, ...}, "val": {...}}; without the file there are no groups'
    listed = read_annotations(path, form).get(split, {})
    if not isinstance(listed, dict):
        raise DataError(f"{path}: {split!r} is not a table of image ids", form)
    groups: dict[int, str] = {}
    for image_id, group in listed.items():
        if not image_id.isascii() or not image_id.isdigit() or not isinstance(group, str):
            raise DataError(f"{path}: {split!r} has the invalid entry {image_id!r}: {group!r}", form)
        groups[int(image_id)] = group
    return groups
