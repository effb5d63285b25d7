"""Reading image files as models see them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from icltool.components.models.shared.regions import with_regions_shown
from icltool.contracts import image_reference, load_image
from icltool.errors import DataError


def read_image(reference: str) -> Image.Image:
    """The image as RGB, 8 bits a channel, turned as its EXIF orientation says, with the regions of the reference shown (see
    `icltool.contracts.images`).

    The path may lead into a zip archive (see `icltool.contracts.open_file`). Transparent parts show white, greys of 16
    bits keep their upper 8, floats from 0 to 1 become greys. Raises DataError naming the file when it is missing, no image,
    too large or truncated, or a region is outside of it.
    """
    wanted = image_reference(reference)
    return with_regions_shown(_rgb(load_image(wanted.file)), wanted)


def cannot_take(reference: str, image: Image.Image, fault: Exception, model: str = "the model") -> DataError:
    """The error for an image that a model's processor raised `fault` at (too long and narrow, say)."""
    reason = " ".join(str(fault).split()) or type(fault).__name__
    return DataError(
        f"{model} cannot take image {reference} ({image.width} x {image.height} pixels): {reason}",
        "leave its example out, or give the image another shape: margins, a part of it",
    )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":  # floats between 0 and 1, or already in the range of 8 bits
        levels = np.nan_to_num(np.asarray(image, dtype=np.float64))
        scale = 255 if levels.min() >= 0 and levels.max() <= 1 else 1
        return Image.fromarray((levels * scale).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode.startswith("I"):  # "I;16" and its byte orders, or "I" of older releases: convert() would cut at 255
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray((levels.clip(0, 0xFFFF) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    return image.convert("RGB")
