"""Thumbnails: faithful, once each, and never more than the budget."""

from __future__ import annotations

import base64
import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icltool.commands.report.page.content import Thumbnail
from icltool.commands.report.page.thumbnails import Size, make_thumbnails, small_image, thumbnail, weight
from icltool.components.models.shared.images import read_image
from icltool.contracts import Region, with_regions
from icltool.execution.progress import SilentProgress
from tests.commands.report.page.synthetic import photo, photos


def opened(small: Thumbnail) -> Image.Image:
    head, _, data = small.source.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def difference(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference in levels."""
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [str(path) for path in photos(tmp_path_factory.mktemp("photos"), 30, 6, (240, 180))]


LADDER = (Size(160, 64, 60), Size(120, 48, 50), Size(96, 40, 40), Size(64, 32, 30))


def made_in(images: list[str], large: int, budget: int, sizes: tuple[Size, ...] = LADDER):  # type: ignore[no-untyped-def]
    """The thumbnails of images of which the first `large` are queries', each used once more than the one before."""
    uses = list(range(len(images)))
    return make_thumbnails(images, frozenset(range(large)), uses, budget, SilentProgress(), sizes)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_quickly_decoded_jpeg_is_the_image_that_models_see(tmp_path: Path, orientation: int, mode: str) -> None:
    path, exif = tmp_path / "x.jpg", Image.Exif()
    exif[0x0112] = orientation
    photo(1, 500, 300).convert(mode).save(path, quality=95, exif=exif)
    plain = read_image(str(path))
    plain.thumbnail((64, 64), Image.Resampling.LANCZOS)
    quick = small_image(str(path), 64)
    assert quick.size == plain.size == ((64, 38) if orientation < 5 else (38, 64))
    assert quick.mode == "RGB"
    assert difference(quick, plain) < 2


def test_a_thumbnail_looks_like_its_image(tmp_path: Path) -> None:
    photo(2).save(tmp_path / "x.jpg", quality=95)
    small = thumbnail(str(tmp_path / "x.jpg"), 120, 75)
    image = opened(small)
    assert image.size == (small.width, small.height) == (120, 90)
    assert difference(image, read_image(str(tmp_path / "x.jpg")).resize((120, 90), Image.Resampling.LANCZOS)) < 10
    assert weight(small) >= len(small.source)
    Image.new("RGB", (20, 10), "red").save(tmp_path / "small.png")
    assert (thumbnail(str(tmp_path / "small.png"), 120, 75).width) == 20, "never larger than it is"


def test_regions_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.new("RGB", (80, 40), "white").save(path)
    crop = thumbnail(with_regions(str(path), [Region(10, 0, 16, 40)], "crop"), 64, 75)
    assert (crop.width, crop.height) == (16, 40)
    hidden = np.asarray(opened(thumbnail(with_regions(str(path), [Region(0, 0, 40, 40)], "hide"), 80, 75)))
    assert hidden[:, :30].max() < 40
    assert hidden[:, 50:].min() > 215


def test_queries_are_larger_and_sizes_the_largest_that_fit(images: list[str]) -> None:
    thumbnails = made_in(images, 4, 10**7)
    assert thumbnails.remarks == ()
    assert [p.width for p in thumbnails.images] == [160] * 4 + [64] * 26
    for size, smaller_one in pairwise(LADDER):
        smaller = made_in(images, 4, thumbnails.bytes - 1)
        assert smaller.bytes < thumbnails.bytes
        assert smaller.remarks == ()
        assert {p.width for p in smaller.images} == {smaller_one.query, smaller_one.demonstration}
        assert made_in(images, 4, int(thumbnails.bytes / 0.9)) == thumbnails, size
        thumbnails = smaller


def test_the_same_arguments_give_the_same_images(images: list[str]) -> None:
    assert made_in(images, 4, 40_000) == made_in(images, 4, 40_000)


def test_what_does_not_fit_is_left_out_least_used_first(images: list[str]) -> None:
    sizes = LADDER[-1:]
    whole = made_in(images, 4, 10**7, sizes)
    thumbnails = made_in(images, 4, whole.bytes - 2000, sizes)
    assert thumbnails.bytes <= whole.bytes - 2000
    included = [one is not None for one in thumbnails.images]
    dropped = included.count(False)
    assert included == [True] * 4 + [False] * dropped + [True] * (26 - dropped)
    assert thumbnails.remarks == (f"{dropped} of 30 images are left out to keep the page small: --max-mb allows more",)
    nothing = made_in(images, 4, -1, sizes)
    assert set(nothing.images) == {None}
    assert "30 of 30 images are left out" in nothing.remarks[0]


def test_images_that_cannot_be_read_are_left_out_and_said(images: list[str], tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(Path(images[0]).read_bytes()[:5000])
    (tmp_path / "text.jpg").write_text("no image")
    bad = [str(tmp_path / name) for name in ("gone.jpg", "cut.jpg", "text.jpg")]
    thumbnails = made_in([bad[0], *images[:3], *bad[1:]], 1, 10**6)
    assert [one is None for one in thumbnails.images] == [True, False, False, False, True, True]
    assert thumbnails.remarks == (f"3 images cannot be shown: image {bad[0]} does not exist",)
    assert made_in([], 0, 10**6).images == ()


@pytest.mark.benchmark
@pytest.mark.parametrize("queries", [10, 400])
def test_many_images_stay_within_the_budget(queries: int, tmp_path: Path) -> None:
    """400 queries and 400 x 5 x 8 demonstrations, none of them twice, in 19 MB; and a fortieth of all that."""
    paths = [str(path) for path in photos(tmp_path, queries * 41, different=min(queries, 40))]
    budget = 47_500 * queries
    thumbnails = make_thumbnails(paths, frozenset(range(queries)), [1] * len(paths), budget, SilentProgress())
    print(f"{len(paths):,} images in {thumbnails.bytes:,} bytes")
    assert None not in thumbnails.images
    assert thumbnails.remarks == ()
    assert 25_000 * queries < thumbnails.bytes <= budget
    assert min(p.width for p in thumbnails.images if p) >= 48
