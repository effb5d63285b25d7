"""Small images for a page, within a budget of bytes: as large as it allows, and left out where nothing else helps."""

from __future__ import annotations

import base64
import io
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from icltool.commands.report.page.content import Thumbnail
from icltool.commands.report.page.page_builder import readable
from icltool.components.models.shared.images import read_image
from icltool.contracts import Progress, Ticker, image_reference, keyed_generator, open_file, open_image
from icltool.contracts.images import upright
from icltool.errors import DataError

_HEAD = "data:image/webp;base64,"
#: Bytes that an image takes beside its own: head, quotes, sizes.
_AROUND = len(_HEAD) + 24
#: Images of each kind that are made at some sizes before one is chosen; they are drawn, not the first.
_MEASURED = 64
#: The part of the budget that an estimate may fill.
_FILLED = 0.94
#: How much larger than the thumbnail a JPEG is decoded, at least.
_REDUCING_GAP = 2.0
_THREADS = 8
#: Images that wait for a thread at a time.
_AHEAD = 256


@dataclass(frozen=True, slots=True)
class Size:
    """Longest sides of queries' and of demonstrations' images in pixels, and the quality of webp, 0 to 100."""

    query: int
    demonstration: int
    quality: int


#: From the largest to the smallest. Demonstrations are many: they give way first.
SIZES = (
    Size(512, 224, 75),
    Size(448, 192, 73),
    Size(416, 168, 72),
    Size(384, 144, 70),
    Size(352, 128, 68),
    Size(320, 112, 65),
    Size(288, 96, 60),
    Size(272, 88, 55),
    Size(256, 80, 50),
    Size(240, 72, 46),
    Size(224, 64, 42),
    Size(208, 56, 38),
    Size(192, 48, 34),
    Size(160, 40, 30),
)


@dataclass(frozen=True)
class Thumbnails:
    """One for each reference, None where there is none; `remarks` say why."""

    images: tuple[Thumbnail | None, ...]
    remarks: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What they take on the page."""
        return sum(weight(image) for image in self.images if image is not None)


def make_thumbnails(
    references: Sequence[str],
    large: frozenset[int],
    uses: Sequence[int],
    budget: int,
    progress: Progress,
    sizes: Sequence[Size] = SIZES,
) -> Thumbnails:
    """Thumbnails of images (references as `Example.image` has them, regions shown as models see them) in `budget` bytes.

    `large` are the positions of queries' images, `uses` says how often each is seen as a demonstration. All are made at the
    largest of `sizes` at which they fit; where they do not fit at the smallest, queries and what is seen most stay. Images
    that cannot be read are left out, and remarked. The same arguments give the same images.
    """
    if not references:
        return Thumbnails(())
    if budget <= 0:
        return Thumbnails((None,) * len(references), (_left_out(len(references), len(references)),))
    maker = _Maker(references, large)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for size in sizes[_first_fitting(maker, pool, sizes, budget) :]:
            with progress.task("images", len(references), "images") as ticker:
                images = [_ticked(one, ticker) for one in maker.all(pool, range(len(references)), size)]
            thumbnails = Thumbnails(tuple(images), tuple(maker.remarks()))
            if thumbnails.bytes <= budget:
                return thumbnails
    return _most_used(thumbnails, large, uses, budget)


def weight(image: Thumbnail) -> int:
    """The bytes that a thumbnail takes on the page, a little more rather than less."""
    return len(image.source) - len(_HEAD) + _AROUND


def thumbnail(reference: str, side: int, quality: int) -> Thumbnail:
    """The image with its longest side at most `side` pixels. DataError as of `models.images.read_image`."""
    image = small_image(reference, side)
    written = io.BytesIO()
    image.save(written, "WEBP", quality=quality, method=4)
    return Thumbnail(_HEAD + base64.b64encode(written.getvalue()).decode("ascii"), *image.size)


def small_image(reference: str, side: int) -> Image.Image:
    """The image as RGB with its longest side at most `side` pixels. JPEGs without regions are decoded at a fraction of their
    size, which is many times quicker. DataError as of `models.images.read_image`."""
    image = _reduced_jpeg(reference, side)
    if image is None:
        image = read_image(reference)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _reduced_jpeg(reference: str, side: int) -> Image.Image | None:
    """A JPEG decoded just large enough for `side`; None for anything else, and for what cannot be read."""
    name = image_reference(reference)
    if name.regions:
        return None
    try:
        with open_file(name.file) as file, open_image(file) as image:
            if image.format != "JPEG":
                return None
            needed = int(side * _REDUCING_GAP)
            image.draft("RGB", (needed, needed))
            image.load()
            return upright(image).convert("RGB")
    except Exception:  # decoders raise what they like
        return None  # read again at full size, which tells what is wrong


class _Maker:
    """Makes thumbnails in threads (Pillow decodes and encodes without Python's lock), and keeps what was wrong."""

    def __init__(self, references: Sequence[str], large: frozenset[int]) -> None:
        self._references, self._large = references, large
        self._faults: dict[int, str] = {}
        self._cached: dict[tuple[int, Size], Thumbnail | None] = {}

    def all(
        self, pool: ThreadPoolExecutor, positions: Iterable[int], size: Size, keep: bool = False
    ) -> Iterator[Thumbnail | None]:
        """The thumbnails of the images in these positions, in order. With `keep` they are not made again when they are
        asked for once more."""
        waiting = iter(positions)
        while block := list(islice(waiting, _AHEAD)):
            images = list(pool.map(lambda position: self._one(position, size), block))
            if keep:
                self._cached.update(((position, size), one) for position, one in zip(block, images, strict=True))
            yield from images

    def sample(self, large: bool) -> tuple[list[int], int]:
        """(positions of some images of a kind, how many there are of it)."""
        kind = [p for p in range(len(self._references)) if (p in self._large) == large]
        order = keyed_generator(0, "report.thumbnails").permutation(len(kind))[:_MEASURED]
        return [kind[place] for place in np.sort(order).tolist()], len(kind)

    def remarks(self) -> list[str]:
        """A line about images that cannot be read, naming the first."""
        if not self._faults:
            return []
        count, first = len(self._faults), self._faults[min(self._faults)]
        return [f"{count:,} image{'s' * (count > 1)} cannot be shown: {readable(first)}"]

    def _one(self, position: int, size: Size) -> Thumbnail | None:
        if position in self._faults:
            return None
        if (position, size) in self._cached:
            return self._cached[position, size]
        side = size.query if position in self._large else size.demonstration
        try:
            return thumbnail(self._references[position], side, size.quality)
        except DataError as error:
            self._faults[position] = error.message
            return None


def _ticked(image: Thumbnail | None, ticker: Ticker) -> Thumbnail | None:
    ticker.advance()
    return image


def _first_fitting(maker: _Maker, pool: ThreadPoolExecutor, sizes: Sequence[Size], budget: int) -> int:
    """The position of the first size at which all images likely fit, by those of a sample; the last where none is."""
    samples = [maker.sample(large=kind) for kind in (True, False)]

    def fits(position: int) -> bool:
        estimate = 0.0
        for positions, count in samples:
            weights = [
                0 if one is None else weight(one) for one in maker.all(pool, positions, sizes[position], keep=True)
            ]
            estimate += count * sum(weights) / max(1, len(weights))
        return estimate <= _FILLED * budget

    if fits(0):  # as most pages do
        return 0
    last = len(sizes) - 1
    return bisect_left(range(last), True, min(1, last), key=fits)


def _most_used(thumbnails: Thumbnails, large: frozenset[int], uses: Sequence[int], budget: int) -> Thumbnails:
    """Those that fit: of queries first, then of the demonstrations that are seen most."""
    order = sorted(range(len(thumbnails.images)), key=lambda p: (p not in large, -uses[p], p))
    images: list[Thumbnail | None] = [None] * len(thumbnails.images)
    left = budget
    for position in order:
        image = thumbnails.images[position]
        if image is None:
            continue
        if weight(image) > left:
            break
        images[position] = image
        left -= weight(image)
    dropped = sum(one is not None for one in thumbnails.images) - sum(one is not None for one in images)
    return Thumbnails(tuple(images), (*thumbnails.remarks, _left_out(dropped, len(order))))


def _left_out(dropped: int, count: int) -> str:
    return f"{dropped:,} of {count:,} images are left out to keep the page small: --max-mb allows more"
