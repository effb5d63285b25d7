"""Showing regions of an image: composited in colour, blackened, with all else blackened, or cut out.

"highlight" draws as the published code of Sherlock does (arXiv:2202.04800): on a transparent layer, where later boxes stand
over earlier ones, which is then composited onto the pixels of the original. A drawn box includes the pixels at LEFT + WIDTH
and TOP + HEIGHT, as there.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from icltool.contracts import ImageReference, Region
from icltool.errors import DataError

#: RGBA: magenta with 60 of 255 parts opacity, in a green line of three pixels.
FILL, OUTLINE, LINE = (255, 5, 205, 60), (5, 255, 55, 255), 3
_CLEAR, _BLACK = (0, 0, 0, 0), (0, 0, 0, 255)

Box = tuple[int, int, int, int]


def with_regions_shown(image: Image.Image, reference: ImageReference) -> Image.Image:
    """The RGB image with the regions of `reference` shown in its mode; the image itself where there are none.

    Parts of regions beyond the image are left out. Raises DataError naming the image where nothing is left of one.
    """
    if not reference.regions:
        return image
    for region in reference.regions:
        clipped(region, image.size, reference.file)
    if reference.mode == "crop":
        return image.crop(bounds(reference, image.size))
    only = reference.mode == "only"
    layer = Image.new("RGBA", image.size, _BLACK if only else _CLEAR)
    draw = ImageDraw.Draw(layer)
    for region in reference.regions:
        corners = (region.left, region.top, region.left + region.width, region.top + region.height)
        if reference.mode == "highlight":
            draw.rectangle(corners, fill=FILL, outline=OUTLINE, width=LINE)
        else:
            draw.rectangle(corners, fill=_CLEAR if only else _BLACK)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def bounds(reference: ImageReference, size: tuple[int, int]) -> Box:
    """(left, top, right, bottom) of the smallest box around all regions, within an image of `size` (width, height): what a
    crop has to keep. The whole image where there are no regions. DataError as of `with_regions_shown`."""
    boxes: Sequence[Box] = [clipped(region, size, reference.file) for region in reference.regions] or [(0, 0, *size)]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def clipped(region: Region, size: tuple[int, int], file: str) -> Box:
    """(left, top, right, bottom) of the part of a region that is within an image of `size` (width, height), without the
    pixels at right and bottom. DataError naming `file` where nothing is."""
    width, height = size
    right, bottom = min(region.left + region.width, width), min(region.top + region.height, height)
    if region.left >= right or region.top >= bottom:
        raise DataError(
            f"image {file} has {width} x {height} pixels, and nothing of them is in the region {region.width} x "
            f"{region.height} at {region.left},{region.top}",
            "the regions are of another image, or of another size of it: get the original, or correct the annotations",
        )
    return region.left, region.top, right, bottom
