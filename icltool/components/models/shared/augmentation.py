"""Reading images for training: crops, mirroring and normalization, and without them what the model's processor does."""

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

    In evaluation an image is squeezed to the square ("squeeze"), or its shorter side is resized to `shorter` pixels and the
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
        kept = _kept(reference, image)
        crop = "none" if generator is None else self.augmentation.crop
        if crop == "resized" and generator is not None:
            box = resized_crop(image.size, self.augmentation.scale, kept, generator)
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box)
        elif crop == "random":
            image = self._square(image, self.augmentation.shorter or max(self.shorter, self.size), kept, generator)
        elif self.evaluation == "centre":
            image = self._square(image, self.shorter, kept, None)
        else:
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
        if generator is not None and self.augmentation.flip and flip and generator.random() < 0.5:
            image = ImageOps.mirror(image)
        return self._normalized(image)

    def _square(
        self, image: Image.Image, shorter: int, kept: Box | None, generator: np.random.Generator | None
    ) -> Image.Image:
        sides, box = square_crop(image.size, self.size, shorter, kept, generator)
        if box is not None:
            image = image.resize(sides, Image.Resampling.BICUBIC).crop(box)
        size = (self.size, self.size)
        return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)

    def _normalized(self, image: Image.Image) -> NDArray[np.float32]:
        pixels = np.asarray(image, dtype=np.float32) * np.float32(1 / 255)
        shown = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(shown.transpose(2, 0, 1), dtype=np.float32)


def resized_crop(
    size: tuple[int, int], scale: tuple[float, float], kept: Box | None, generator: np.random.Generator
) -> Box:
    """A rectangle of `scale` of the image's area, aspect ratio 3/4 to 4/3 (uniform in its logarithm), that holds `kept`
    whole: where it is too small for that it grows. After ten tries in vain, the largest in the middle."""
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
    if kept is not None:
        w, h = max(w, math.ceil(kept[2] - kept[0])), max(h, math.ceil(kept[3] - kept[1]))
    drawing = None if centred else generator
    left = _offset(width, w, None if kept is None else (kept[0], kept[2]), drawing)
    top = _offset(height, h, None if kept is None else (kept[1], kept[3]), drawing)
    return left, top, left + w, top + h


def square_crop(
    size: tuple[int, int], side: int, shorter: int, kept: Box | None, generator: np.random.Generator | None
) -> tuple[tuple[int, int], tuple[int, int, int, int] | None]:
    """(sides of the image with its shorter one resized to `shorter` pixels, a square in it): at a random place, or without
    generator in the middle, but with `kept` whole in it. The square's side is `side`, or what it takes to hold `kept`; None
    where no square of the image does: all of it is to be squeezed."""
    width, height = size
    scale = shorter / min(size)
    sides = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    region = None
    if kept is not None:
        left, top, right, bottom = (k * scale for k in kept)
        region = (math.floor(left), math.floor(top), min(math.ceil(right), sides[0]), min(math.ceil(bottom), sides[1]))
        side = max(side, region[2] - region[0], region[3] - region[1])
    if side > min(sides):
        return sides, None
    x = _offset(sides[0], side, None if region is None else (region[0], region[2]), generator)
    y = _offset(sides[1], side, None if region is None else (region[1], region[3]), generator)
    return sides, (x, y, x + side, y + side)


def _offset(whole: int, part: int, kept: tuple[float, float] | None, generator: np.random.Generator | None) -> int:
    """Where a part of a side begins: anywhere that leaves `kept` whole, by default the middle."""
    low, high = 0, whole - part
    if kept is not None:
        low, high = max(low, math.ceil(kept[1]) - part), min(high, math.floor(kept[0]))
        high = max(low, high)
    if generator is not None:
        return int(generator.integers(low, high + 1))
    return min(max(round((whole - part) / 2), low), high)


def _kept(reference_text: str, image: Image.Image) -> Box | None:
    """The rectangle around the regions that the reference shows, within the image; None without any, and where the
    image has been cut to them."""
    reference = image_reference(reference_text)
    if not reference.regions or reference.mode == "crop":
        return None
    width, height = image.size
    left = min(max(0, min(r.left for r in reference.regions)), width - 1)
    top = min(max(0, min(r.top for r in reference.regions)), height - 1)
    right = min(width, max(r.left + r.width for r in reference.regions))
    bottom = min(height, max(r.top + r.height for r in reference.regions))
    return left, top, max(left + 1, right), max(top + 1, bottom)
