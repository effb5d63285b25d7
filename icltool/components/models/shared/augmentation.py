"""Reading images for training with crops, mirroring and normalization, and for evaluation as the model's processor does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from icltool.components.models.shared.images import read_image
from icltool.contracts import Augmentation, image_reference

#: A rectangle (left, top, right, bottom) in pixels of an image.
Box = tuple[float, float, float, float]

_TRIES = 10
_RATIOS = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class ImageReader:
    """See PixelReader. Images become `size` x `size` pixels, normalized by `mean` and `std` of each channel.

    In evaluation an image is resized to the square ("squeeze"), or its shorter side is resized to `shorter` pixels and the
    middle cut out ("centre").
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augmentation: Augmentation = field(default_factory=Augmentation)
    evaluation: Literal["squeeze", "centre"] = "squeeze"
    shorter: int = 256

    def __call__(
        self, reference: str, generator: np.random.Generator | None = None, flip: bool = True
    ) -> NDArray[np.float32]:
        image = read_image(reference)
        region = _region_box(reference, image)
        crop = "none" if generator is None else self.augmentation.crop
        if crop == "resized" and generator is not None:
            box = resized_crop(image.size, self.augmentation.scale, region, generator)
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box)
        elif crop == "random":
            image = self._square(image, self.augmentation.shorter or max(self.shorter, self.size), region, generator)
        elif self.evaluation == "centre":
            image = self._square(image, self.shorter, region, None)
        else:
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        if generator is not None and self.augmentation.flip and flip and generator.random() < 0.5:
            image = ImageOps.mirror(image)
        return self._normalized(image)

    def _square(
        self, image: Image.Image, shorter: int, region: Box | None, generator: np.random.Generator | None
    ) -> Image.Image:
        sides, box = square_crop(image.size, self.size, shorter, region, generator)
        if box is not None:
            image = image.resize(sides, Image.Resampling.BICUBIC).crop(box)
        size = (self.size, self.size)
        return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)

    def _normalized(self, image: Image.Image) -> NDArray[np.float32]:
        pixels = np.asarray(image, dtype=np.float32) * np.float32(1 / 255)
        normalized = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normalized.transpose(2, 0, 1), dtype=np.float32)


def resized_crop(
    size: tuple[int, int], scale: tuple[float, float], region: Box | None, generator: np.random.Generator
) -> Box:
    """A rectangle of `scale` of the image's area and aspect ratio 3/4 to 4/3 (uniform in its logarithm) that contains
    `region`; if it is too small for that it grows. After ten failed tries, the largest such rectangle in the middle."""
    width, height = size
    centred = False
    for _ in range(_TRIES):
        area = width * height * generator.uniform(*scale)
        ratio = math.exp(generator.uniform(math.log(_RATIOS[0]), math.log(_RATIOS[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        limited = min(max(width / height, _RATIOS[0]), _RATIOS[1])
        w, h = (width, round(width / limited)) if width / height < limited else (round(height * limited), height)
        w, h = max(1, min(w, width)), max(1, min(h, height))
        centred = True
    if region is not None:
        w, h = max(w, math.ceil(region[2] - region[0])), max(h, math.ceil(region[3] - region[1]))
    drawing = None if centred else generator
    left = _offset(width, w, None if region is None else (region[0], region[2]), drawing)
    top = _offset(height, h, None if region is None else (region[1], region[3]), drawing)
    return left, top, left + w, top + h


def square_crop(
    size: tuple[int, int], side: int, shorter: int, region: Box | None, generator: np.random.Generator | None
) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """(sides of the image after its shorter one is resized to `shorter` pixels, a square in it). The square is at a random
    place, without generator in the middle, and contains `region`. Its side is `side`, or what is needed to contain `region`;
    None if no square of the image does: then the whole image is to be squeezed."""
    width, height = size
    scale = shorter / min(size)
    sides = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    scaled_region = None
    if region is not None:
        left, top, right, bottom = (k * scale for k in region)
        scaled_region = (
            math.floor(left),
            math.floor(top),
            min(math.ceil(right), sides[0]),
            min(math.ceil(bottom), sides[1]),
        )
        side = max(side, scaled_region[2] - scaled_region[0], scaled_region[3] - scaled_region[1])
    if side > min(sides):
        return sides, None
    x = _offset(sides[0], side, None if scaled_region is None else (scaled_region[0], scaled_region[2]), generator)
    y = _offset(sides[1], side, None if scaled_region is None else (scaled_region[1], scaled_region[3]), generator)
    return sides, (x, y, x + side, y + side)


def _offset(whole: int, part: int, span: tuple[float, float] | None, generator: np.random.Generator | None) -> int:
    """Where a part of a side begins: a place that contains `span`, random with a generator, else the nearest to the middle."""
    low, high = 0, whole - part
    if span is not None:
        low, high = max(low, math.ceil(span[1]) - part), min(high, math.floor(span[0]))
        high = max(low, high)
    if generator is not None:
        return int(generator.integers(low, high + 1))
    return min(max(round((whole - part) / 2), low), high)


def _region_box(reference_text: str, image: Image.Image) -> Box | None:
    """The rectangle around the regions that the reference shows, within the image; None without regions, or if the
    image is cropped to them."""
    reference = image_reference(reference_text)
    if not reference.regions or reference.mode == "crop":
        return None
    width, height = image.size
    left = min(max(0, min(r.left for r in reference.regions)), width - 1)
    top = min(max(0, min(r.top for r in reference.regions)), height - 1)
    right = min(width, max(r.left + r.width for r in reference.regions))
    bottom = min(height, max(r.top + r.height for r in reference.regions))
    return left, top, max(left + 1, right), max(top + 1, bottom)
