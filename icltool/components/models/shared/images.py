"""Reading image files for models."""

from __future__ import annotations

import numpy as np
from PIL import Image

from icltool.components.models.shared.regions import with_regions_shown
from icltool.contracts import image_reference, load_image
from icltool.errors import DataError


def read_image(reference: str) -> Image.Image:
    """The image as RGB with 8 bits per channel, rotated according to its EXIF orientation, with the regions of the reference
    shown (see `icltool.contracts.images`).

    The path may lead into a zip archive (see `icltool.contracts.open_file`). Transparent parts become white, 16-bit greys
    keep their upper 8 bits, floats from 0 to 1 become greys. Raises DataError naming the file if it is missing, not an image,
    too large or truncated, or if a region is outside it.
    """
    parsed = image_reference(reference)
    return with_regions_shown(_rgb(load_image(parsed.file)), parsed)


def cannot_take(reference: str, image: Image.Image, fault: Exception, model: str = "the model") -> DataError:
    """The error for an image for which a model's processor raised `fault` (for example because it is too long and narrow)."""
    reason = " ".join(str(fault).split()) or type(fault).__name__
    return DataError(
        f"{model} cannot take image {reference} ({image.width} x {image.height} pixels): {reason}",
        "leave out its example, or crop or pad the image",
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
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
