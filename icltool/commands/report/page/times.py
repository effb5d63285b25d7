"""Which images were changed after the answers about them were made: they may not be what the model saw."""

from __future__ import annotations

import os
from pathlib import Path

from icltool.contracts import archive_and_member, image_file


class ImageTimes:
    """The images of one data set, `label`, beside what was made from them at `made` (seconds since the epoch; None where
    that is not known). With `changed` the data set that is prepared now is another version of it.

    Images of another version whose files are not older are left out. Others are shown, and counted.
    """

    def __init__(self, label: str, written: float | None, changed: bool = False) -> None:
        self._label, self._made, self._changed = label, written, changed
        self._newer: dict[str, bool] = {}

    def usable(self, reference: str) -> str:
        """The reference of an image; "" where it is left out, or there is none."""
        if not reference:
            return ""
        file = image_file(reference)
        if file not in self._newer:
            changed = changed_at(file, renamed=self._changed)
            self._newer[file] = self._made is not None and changed is not None and changed > self._made
        return "" if self._changed and self._newer[file] else reference

    def remarks(self) -> list[str]:
        """A line about the images that were asked for and are newer, where there are any."""
        newer, files = sum(self._newer.values()), len(self._newer)
        if not newer:
            return []
        what = "they are left out" if self._changed else "they may not be what the model saw"
        return [f"{self._label}: {newer:,} of {files:,} images changed after the model had seen them: {what}"]


def changed_at(file: str | Path, renamed: bool = False) -> float | None:
    """When the file (of a zip archive's member: the archive) was last written; None where there is none. With `renamed` also
    when it was put into its place, which tells of older files that replace others."""
    name = os.fspath(file)
    try:
        status = os.stat(name)  # noqa: PTH116  called for every image
    except (OSError, ValueError):
        member = archive_and_member(name) if "\0" not in name else None
        return None if member is None or not member[1] else changed_at(member[0], renamed)
    return max(status.st_mtime, status.st_ctime) if renamed else status.st_mtime
