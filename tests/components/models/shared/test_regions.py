"""Regions of an image, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icltool.components.models.shared.images import read_image
from icltool.components.models.shared.regions import FILL, OUTLINE, bounds
from icltool.contracts import ImageReference, Region, with_regions
from icltool.errors import DataError

WIDTH, HEIGHT = 60, 40
BOX = Region(10, 5, 20, 15)
OTHER = Region(40, 30, 10, 8)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels).save(tmp_path / "x.png")
    return str(tmp_path / "x.png")


def pixels_of(path: str, mode: str, *regions: Region) -> np.ndarray:
    image = read_image(with_regions(path, regions, mode))  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image)


def drawn(pixels: np.ndarray, *regions: Region) -> np.ndarray:
    """A plain twin of "highlight": where the outline is its colour, within it 60 parts of 255 of the fill."""
    actual = pixels.astype(np.float64)
    alpha = FILL[3] / 255
    for r in regions:
        rows, columns = slice(r.top, r.top + r.height + 1), slice(r.left, r.left + r.width + 1)
        inner = slice(r.top + 3, r.top + r.height - 2), slice(r.left + 3, r.left + r.width - 2)
        actual[rows, columns] = OUTLINE[:3]
        actual[inner] = (1 - alpha) * pixels[inner] + alpha * np.array(FILL[:3])
    return actual


def test_without_regions_the_image_is_as_it_is(path: str, pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(read_image(path)), pixels)


def test_a_highlight_is_composited_onto_the_original(path: str, pixels: np.ndarray) -> None:
    for regions in ((BOX,), (BOX, OTHER)):
        actual = pixels_of(path, "highlight", *regions)
        np.testing.assert_allclose(actual, drawn(pixels, *regions), atol=1)
    assert tuple(actual[BOX.top, BOX.left]) == OUTLINE[:3]


def test_of_overlapping_boxes_the_later_one_stands_above(path: str, pixels: np.ndarray) -> None:
    actual = pixels_of(path, "highlight", BOX, Region(20, 10, 20, 15))
    np.testing.assert_allclose(actual, drawn(pixels, BOX, Region(20, 10, 20, 15)), atol=1)


def test_hide_and_only_are_each_others_opposite(path: str, pixels: np.ndarray) -> None:
    hidden, only = (pixels_of(path, mode, BOX, OTHER) for mode in ("hide", "only"))
    np.testing.assert_array_equal(hidden.astype(int) + only, pixels)
    within = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for r in (BOX, OTHER):
        within[r.top : r.top + r.height + 1, r.left : r.left + r.width + 1] = True
    assert not hidden[within].any()
    assert not only[~within].any()


def test_a_crop_is_the_box_around_all(path: str, pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(pixels_of(path, "crop", BOX), pixels[5:20, 10:30])
    np.testing.assert_array_equal(pixels_of(path, "crop", OTHER, BOX), pixels[5:38, 10:50])
    np.testing.assert_array_equal(pixels_of(path, "crop", Region(50, 0, 90, 900)), pixels[:, 50:])


def test_boxes_beyond_the_image_are_clipped(path: str, pixels: np.ndarray) -> None:
    beyond = Region(50, 30, 900, 900)
    np.testing.assert_array_equal(pixels_of(path, "hide", beyond)[30:, 50:], 0)
    np.testing.assert_array_equal(pixels_of(path, "hide", beyond)[:30], pixels[:30])
    assert pixels_of(path, "highlight", beyond).shape == pixels.shape
    assert bounds(ImageReference("x", (beyond, BOX)), (WIDTH, HEIGHT)) == (10, 5, 60, 40)
    assert bounds(ImageReference("x"), (WIDTH, HEIGHT)) == (0, 0, 60, 40)


@pytest.mark.parametrize("mode", ["highlight", "hide", "only", "crop"])
@pytest.mark.parametrize("region", [Region(60, 0, 5, 5), Region(0, 40, 5, 5), Region(3, 3, 0, 5), Region(3, 3, 5, 0)])
def test_a_region_of_which_nothing_is_left_is_an_error(path: str, mode: str, region: Region) -> None:
    with pytest.raises(DataError) as caught:
        pixels_of(path, mode, BOX, region)
    assert f"image {path} has 60 x 40 pixels" in caught.value.message
    assert f"{region.width} x {region.height} at {region.left},{region.top}" in caught.value.message


def test_boxes_are_those_of_the_turned_image(tmp_path: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned = np.rot90(pixels, -1)
    np.testing.assert_array_equal(
        pixels_of(str(tmp_path / "turned.png"), "crop", Region(0, 50, 40, 10)), turned[50:, :]
    )


def test_a_missing_image_is_named_without_its_regions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image \S*gone\.png does not exist"):
        pixels_of(str(tmp_path / "gone.png"), "hide", BOX)
