"""Reading image files as models see them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from icltool.contracts import open_file, open_picture, picture_reference
from icltool.errors import DataError
from icltool.models.regions import with_regions_shown

_RESTORE = "the file is damaged or truncated; restore it"


def read_image(reference: str) -> Image.Image:
    """The picture as RGB, 8 bits a channel, turned as its EXIF orientation says, with the regions of the reference shown (see
    `icltool.contracts.pictures`).

    The path may lead into a zip archive (see `icltool.contracts.open_file`). Transparent parts show white, greys of 16
    bits keep their upper 8. Raises DataError naming the file when it is missing, no image, or truncated, or a region is
    outside of it.
    """
    wanted = picture_reference(reference)
    return with_regions_shown(_whole(wanted.file), wanted)


def _whole(path: str) -> Image.Image:
    try:
        with open_file(path) as file, open_picture(file) as image:
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise DataError(f"image {path} is missing", "restore it, or run `icltool prepare` again") from None
    except IsADirectoryError:
        raise DataError(f"image {path} is a folder", "give the file of a picture") from None
    except UnidentifiedImageError as error:
        raise DataError(f"image {path} cannot be read: it is no image of a known format", _RESTORE) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"image {path} cannot be read: {reason}", _RESTORE) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # "I;16" and its byte orders, or "I" of older releases: convert() would cut at 255
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray((levels.clip(0, 0xFFFF) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    return image.convert("RGB")
