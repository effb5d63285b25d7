"""References to pictures: a path, and where a task is about parts of the picture, which and how they are shown.

The reference of a picture with regions is its path with a fragment behind it, `#xywh=LEFT,TOP,WIDTH,HEIGHT` for each
region in pixels of the original (W3C Media Fragments URI 1.0, section 4.2.2) and `&show=MODE` at the end. It stands wherever a
path does: in `Example.image`, in prompts, as the key of caches. Any other text is a path as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

if TYPE_CHECKING:
    from PIL import Image

#: How regions are shown: composited in colour, blackened, with all else blackened, or cut out (the box around all).
ShowMode = Literal["highlight", "hide", "only", "crop"]
SHOW_MODES: tuple[str, ...] = get_args(ShowMode)

_BOX = r"xywh=\d+,\d+,\d+,\d+"
_FRAGMENT = re.compile(rf"#({_BOX}(?:&{_BOX})*)&show=({'|'.join(SHOW_MODES)})$")


@dataclass(frozen=True, slots=True)
class Region:
    """A box in pixels of the original picture."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class PictureReference:
    """A picture's file, and the regions of it that are shown in `mode` (none: the picture as it is)."""

    file: str
    regions: tuple[Region, ...] = ()
    mode: str = "highlight"

    def __str__(self) -> str:
        if not self.regions:
            return self.file
        boxes = "&".join(f"xywh={r.left},{r.top},{r.width},{r.height}" for r in self.regions)
        return f"{self.file}#{boxes}&show={self.mode}"


def picture_reference(text: str) -> PictureReference:
    """The parts of a reference."""
    found = _FRAGMENT.search(text)
    if found is None:
        return PictureReference(text)
    boxes = [box.removeprefix("xywh=").split(",") for box in found.group(1).split("&")]
    regions = tuple(Region(*(int(number) for number in box)) for box in boxes)
    return PictureReference(text[: found.start()], regions, found.group(2))


def picture_file(text: str) -> str:
    """The file of a reference."""
    return picture_reference(text).file


def with_regions(file: str, regions: Sequence[Region], mode: ShowMode = "highlight") -> str:
    """The reference of a picture whose regions are shown in `mode`. ValueError for negative numbers or another mode."""
    if mode not in SHOW_MODES or any(min(r.left, r.top, r.width, r.height) < 0 for r in regions):
        raise ValueError(f"no regions of a picture: {list(regions)}, shown as {mode!r}")
    return str(PictureReference(file, tuple(regions), mode))


#: Formats that Pillow reads by starting another program on the file (EPS: Ghostscript, an interpreter) or by the operating
#: system's own drawing commands (WMF): data decide neither.
_NOT_READ = frozenset({"EPS", "WMF"})
_COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def open_picture(file: BinaryIO | Path) -> Image.Image:
    """`PIL.Image.open` for files of others: pixels only, no format that is a program to be run. Raises what it raises."""
    from PIL import Image

    return Image.open(file, formats=_formats())


@cache
def _formats() -> list[str]:
    """Those that this Pillow reads, the usual ones first."""
    from PIL import Image

    Image.init()
    return sorted(Image.OPEN.keys() - _NOT_READ, key=lambda name: (name not in _COMMON, name))
