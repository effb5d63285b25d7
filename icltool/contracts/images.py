"""References to images: a path and, for a task about parts of the image, which regions are shown and how.

The reference of an image with regions is its path with a fragment behind it, `#xywh=LEFT,TOP,WIDTH,HEIGHT` for each region
in pixels of the original (W3C Media Fragments URI 1.0, section 4.2.2) and `&show=MODE` at the end. It is used wherever a
path is: in `Example.image`, in prompts, as the key of caches. Any other text is a plain path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

from icltool.contracts.files import open_file
from icltool.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL import Image

#: How regions are shown: composited in colour, blackened, with all else blackened, or cut out (the box around all).
ShowMode = Literal["highlight", "hide", "only", "crop"]
SHOW_MODES: tuple[str, ...] = get_args(ShowMode)

_BOX = r"xywh=\d+,\d+,\d+,\d+"
_FRAGMENT = re.compile(rf"#({_BOX}(?:&{_BOX})*)&show=({'|'.join(SHOW_MODES)})$")


@dataclass(frozen=True, slots=True)
class Region:
    """A box in pixels of the original image."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image's file, and the regions of it that are shown in `mode` (none: the image as it is)."""

    file: str
    regions: tuple[Region, ...] = ()
    mode: str = "highlight"

    def __str__(self) -> str:
        if not self.regions:
            return self.file
        boxes = "&".join(f"xywh={r.left},{r.top},{r.width},{r.height}" for r in self.regions)
        return f"{self.file}#{boxes}&show={self.mode}"


def image_reference(text: str) -> ImageReference:
    """The parts of a reference."""
    match = _FRAGMENT.search(text)
    if match is None:
        return ImageReference(text)
    boxes = [box.removeprefix("xywh=").split(",") for box in match.group(1).split("&")]
    regions = tuple(Region(*(int(number) for number in box)) for box in boxes)
    return ImageReference(text[: match.start()], regions, match.group(2))


def image_file(text: str) -> str:
    """The file of a reference."""
    return image_reference(text).file


def with_regions(file: str, regions: Sequence[Region], mode: ShowMode = "highlight") -> str:
    """The reference of an image whose regions are shown in `mode`. ValueError for negative numbers or another mode."""
    if mode not in SHOW_MODES or any(min(r.left, r.top, r.width, r.height) < 0 for r in regions):
        raise ValueError(f"no regions of an image: {list(regions)}, shown as {mode!r}")
    return str(ImageReference(file, tuple(regions), mode))


#: Formats that Pillow reads by starting another program on the file (EPS: Ghostscript, an interpreter) or through the
#: operating system's drawing commands (WMF). Data must trigger neither.
_NOT_READ = frozenset({"EPS", "WMF"})
_COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


#: The most pixels that an image may have; Pillow's own limit if it is not set.
LIMIT_VARIABLE = "ICLTOOL_MAX_IMAGE_PIXELS"
_ORIENTATION = 0x0112


def open_image(file: BinaryIO | Path) -> Image.Image:
    """`PIL.Image.open` for untrusted files: pixels only, no format that runs a program. Raises what `PIL.Image.open`
    raises."""
    from PIL import Image

    if (limit := pixel_limit()) and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(1, (limit + 1) // 2)  # Pillow refuses what has more than twice as many
    return Image.open(file, formats=_formats())


def pixel_limit() -> int:
    """The value of LIMIT_VARIABLE, 0 if it is not set. ConfigError if it is not a positive integer."""
    written = os.environ.get(LIMIT_VARIABLE, "").strip()
    if written and not (written.isdecimal() and int(written)):
        raise ConfigError(f"{LIMIT_VARIABLE} is {written!r}", "set it to a number of pixels, or unset it")
    return int(written or 0)


def upright(image: Image.Image) -> Image.Image:
    """The loaded image, rotated according to its EXIF orientation. Malformed metadata is ignored."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # parsers of metadata may raise anything: struct.error, TypeError, ZeroDivisionError …
        return image


def load_image(path: str) -> Image.Image:
    """The decoded image, upright, in its own mode. DataError that names the file if decoding fails."""
    try:
        with open_file(path) as file, open_image(file) as image:
            image.load()
            return upright(image)
    except ConfigError:
        raise
    except Exception as error:  # decoders may raise anything: OSError, SyntaxError, struct.error, RuntimeError …
        raise image_error(path, error) from error


def image_size(path: str) -> tuple[int, int]:
    """(width, height) in pixels of the image, upright; it is decoded only if it may be rotated. DataError as in
    `load_image`."""
    try:
        with open_file(path) as file, open_image(file) as image:
            size = image.size
            try:
                turned = image.getexif().get(_ORIENTATION, 1) != 1
            except Exception:  # as in `upright`
                turned = False
    except ConfigError:
        raise
    except Exception as error:  # as in `load_image`
        raise image_error(path, error) from error
    return load_image(path).size if turned else size


def image_error(path: str, error: Exception) -> DataError:
    """The error for an image whose opening or decoding raised `error`."""
    from PIL import Image, UnidentifiedImageError

    restore = "the file is damaged or truncated; restore it"
    if isinstance(error, FileNotFoundError):
        return DataError(f"image {path} does not exist", "restore it, or run `icltool prepare` again")
    if isinstance(error, IsADirectoryError):
        return DataError(f"image {path} is a folder", "give the file of an image")
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"image {path} cannot be read: it is not an image of a known format", restore)
    if isinstance(error, Image.DecompressionBombError):
        match = re.search(r"\((\d+) pixels\)", str(error))
        pixels = f"{int(match[1]):,} pixels, " if match else ""
        limit = pixel_limit() or 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return DataError(
            f"image {path} has {pixels}more than the {limit:,} that are read",
            f"give a smaller copy, or set {LIMIT_VARIABLE} to read it",
        )
    if isinstance(error, MemoryError):
        return DataError(f"image {path} is too large for this machine's memory", "give a smaller copy")
    reason = (isinstance(error, OSError) and error.strerror) or str(error).replace(path, Path(path).name)
    return DataError(f"image {path} cannot be read: {' '.join(reason.split()) or type(error).__name__}", restore)


@cache
def _formats() -> list[str]:
    """The formats that this Pillow reads, the usual ones first."""
    from PIL import Image

    Image.init()
    return sorted(Image.OPEN.keys() - _NOT_READ, key=lambda name: (name not in _COMMON, name))
