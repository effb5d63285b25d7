"""Showing regions of an image: highlighted in colour, blacked out, with everything else blacked out, or cropped.

"highlight" draws as the published code of Sherlock does (arXiv:2202.04800): on a transparent layer, later boxes over earlier
ones, which is then composited onto the original. As there, a drawn box includes the pixels at LEFT + WIDTH and TOP + HEIGHT.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from icltool.contracts import ImageReference, Region
from icltool.errors import DataError

#: RGBA: magenta with an opacity of 60 / 255, and a green outline of three pixels.
FILL, OUTLINE, LINE = (255, 5, 205, 60), (5, 255, 55, 255), 3
_CLEAR, _BLACK = (0, 0, 0, 0), (0, 0, 0, 255)

Box = tuple[int, int, int, int]


def with_regions_shown(image: Image.Image, reference: ImageReference) -> Image.Image:
    """The RGB image with the regions of `reference` shown in its mode; the image itself if there are none.

    Parts of regions outside the image are left out. Raises DataError naming the image if a region is entirely outside.
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
    """(left, top, right, bottom) of the smallest box around all regions in an image of `size` (width, height): the part that a
    crop must keep. The whole image if there are no regions. Raises DataError as `with_regions_shown` does."""
    boxes: Sequence[Box] = [clipped(region, size, reference.file) for region in reference.regions] or [(0, 0, *size)]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def clipped(region: Region, size: tuple[int, int], file: str) -> Box:
    """(left, top, right, bottom) of the part of a region that is within an image of `size` (width, height), without the
    pixels at right and bottom. Raises DataError naming `file` if no part is."""
    width, height = size
    right, bottom = min(region.left + region.width, width), min(region.top + region.height, height)
    if region.left >= right or region.top >= bottom:
        raise DataError(
            f"image {file} has {width} x {height} pixels, so the region {region.width} x {region.height} at "
            f"{region.left},{region.top} is outside it",
            "the regions belong to another image or another size of it: get the original, or correct the annotations",
        )
    return region.left, region.top, right, bottom
