"""Reading image files as models see them."""

from __future__ import annotations

from PIL import Image, ImageOps, UnidentifiedImageError

from icltool.errors import DataError


def read_image(path: str) -> Image.Image:
    """The picture as RGB, turned as its EXIF orientation says.

    Raises DataError naming the file when it is missing, no image, or truncated.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise DataError(f"image {path} is missing", "restore it, or run `icltool prepare` again") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"image {path} cannot be read: {error}", "the file is damaged or truncated; restore it"
        ) from error
