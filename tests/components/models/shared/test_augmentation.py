"""Reading images for training: evaluation as the models' own processors, crops, mirroring."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from icltool.components.models.shared.augmentation import ImageReader, _region_box, resized_crop, square_crop
from icltool.contracts import Augmentation, Region, keyed_generator, with_regions
from icltool.errors import DataError

HALF = (0.5, 0.5, 0.5)
ONES, ZEROS = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
SIZES = ((40, 30), (30, 53), (224, 224), (97, 260))


def image_file(folder: Path, size: tuple[int, int], seed: int = 0) -> str:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), dtype=np.uint8)
    path = folder / f"{size[0]}x{size[1]}-{seed}.png"
    Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR).save(path)
    return str(path)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [28, 364])
def test_evaluation_is_what_the_processor_does(side: int, size: tuple[int, int], tmp_path: Path) -> None:
    """BLIP-2 and BLIP (one processor): squeezed to the square, bicubic, CLIP's mean and std."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = BlipImageProcessorPil(size={"height": side, "width": side})
    path = image_file(tmp_path, size)
    expected = processor([Image.open(path).convert("RGB")], return_tensors="np")["pixel_values"][0]
    actual = ImageReader(side, tuple(processor.image_mean), tuple(processor.image_std))(path)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_evaluation_in_the_centre(size: tuple[int, int], tmp_path: Path) -> None:
    """OFA's: shorter side 256 bicubic, the middle 224 x 224, mean and std 0.5; plainly, as torchvision cuts."""
    path = image_file(tmp_path, size)
    image = Image.open(path)
    width, height = size
    short = min(size)
    resized = image.resize((256 * width // short, 256 * height // short), Image.Resampling.BICUBIC)
    top, left = round((resized.height - 224) / 2), round((resized.width - 224) / 2)
    expected = np.asarray(resized, np.float64)[top : top + 224, left : left + 224].transpose(2, 0, 1) / 255 * 2 - 1
    reader = ImageReader(224, HALF, HALF, evaluation="centre", shorter=256)
    np.testing.assert_allclose(reader(path), expected, atol=1e-6)


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    corner=st.tuples(st.floats(0, 0.95), st.floats(0, 0.95)),
    extent=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_crops_stay_inside_and_keep_the_region(
    size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float], seed: int
) -> None:
    low = [min(int(c * s), s - 1) for c, s in zip(corner, size, strict=True)]
    high = [min(s, k + max(1, int(e * s))) for e, s, k in zip(extent, size, low, strict=True)]
    for region in (None, (low[0], low[1], high[0], high[1])):
        box = resized_crop(size, (0.5, 1.0), region, np.random.default_rng(seed))
        assert 0 <= box[0] < box[2] <= size[0]
        assert 0 <= box[1] < box[3] <= size[1]
        if region is not None:
            assert (box[0] <= region[0], box[1] <= region[1]) == (True, True)
            assert (box[2] >= region[2], box[3] >= region[3]) == (True, True)


def test_sizes_of_crops() -> None:
    rng = np.random.default_rng(0)
    boxes = [resized_crop((400, 300), (0.5, 1.0), None, rng) for _ in range(300)]
    areas = [(b[2] - b[0]) * (b[3] - b[1]) / 120_000 for b in boxes]
    ratios = [(b[2] - b[0]) / (b[3] - b[1]) for b in boxes]
    assert 0.48 < min(areas) < 0.55
    assert 0.9 < max(areas) <= 1.0
    assert 0.74 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.35
    assert len({b[:2] for b in boxes}) > 100


def test_squares(tmp_path: Path) -> None:
    """Anywhere within the resized image; larger where a region asks for it; none where no square holds the region."""
    draws = [square_crop((400, 300), 224, 256, None, keyed_generator(k, "crop", 0)) for k in range(100)]
    assert {sides for sides, _ in draws} == {(341, 256)}
    boxes = [box for _, box in draws if box is not None]
    assert {(b[2] - b[0], b[3] - b[1]) for b in boxes} == {(224, 224)}
    assert (min(b[0] for b in boxes), max(b[2] for b in boxes)) == pytest.approx((0, 341), abs=6)
    assert square_crop((400, 300), 224, 256, (10, 10, 290, 40), None) == ((341, 256), (8, 8, 248, 248))
    assert square_crop((400, 300), 224, 256, (10, 10, 350, 40), None) == ((341, 256), None)
    squeezed = ImageReader(28, HALF, HALF, Augmentation("random", shorter=30))
    path = image_file(tmp_path, (120, 40))
    wide = with_regions(path, [Region(0, 0, 110, 10)], "highlight")
    plain = ImageReader(28, HALF, HALF)
    assert np.array_equal(squeezed(wide, keyed_generator(0, "crop", 0)), plain(wide))


@given(
    size=st.tuples(st.integers(4, 300), st.integers(4, 300)),
    corner=st.tuples(st.floats(0, 0.95), st.floats(0, 0.95)),
    extent=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_squares_keep_the_region(
    size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float], seed: int
) -> None:
    low = [min(int(c * s), s - 1) for c, s in zip(corner, size, strict=True)]
    high = [min(s, k + max(1, int(e * s))) for e, s, k in zip(extent, size, low, strict=True)]
    for generator in (None, np.random.default_rng(seed)):
        sides, box = square_crop(size, 40, 44, (low[0], low[1], high[0], high[1]), generator)
        if box is None:
            assert max((high[k] - low[k]) * 44 / min(size) for k in (0, 1)) > 42
            continue
        assert box[2] - box[0] == box[3] - box[1] >= 40
        for k in (0, 1):
            scale = 44 / min(size)
            assert 0 <= box[k] <= np.floor(low[k] * scale)
            assert min(sides[k], high[k] * scale) <= box[k + 2] <= sides[k]


def test_what_is_kept_is_the_rectangle_around_all_regions(tmp_path: Path) -> None:
    path = image_file(tmp_path, (40, 30))
    both = [Region(5, 6, 10, 4), Region(20, 2, 30, 8)]
    assert _region_box(with_regions(path, both), Image.open(path)) == (5, 2, 40, 10)
    assert _region_box(with_regions(path, both, "crop"), Image.open(path)) is None
    assert _region_box(path, Image.open(path)) is None


def test_mirroring(tmp_path: Path) -> None:
    path = image_file(tmp_path, (30, 20))
    reader = ImageReader(28, ZEROS, ONES, Augmentation(flip=True))
    plain = reader(path)
    images = [reader(path, keyed_generator(k, "pixels", 0)) for k in range(40)]
    mirrored = [np.array_equal(image, plain[:, :, ::-1]) for image in images]
    assert 8 < sum(mirrored) < 32
    assert all(np.array_equal(image, plain) for image, turned in zip(images, mirrored, strict=True) if not turned)
    assert all(np.array_equal(reader(path, keyed_generator(k, "pixels", 0), flip=False), plain) for k in range(10))


def test_readers_are_pickled_and_name_missing_images(tmp_path: Path) -> None:
    reader = pickle.loads(pickle.dumps(ImageReader(28, HALF, HALF, Augmentation("random", shorter=32))))
    path = image_file(tmp_path, (50, 90))
    assert reader(path, keyed_generator(0, "pixels", 0)).shape == (3, 28, 28)
    with pytest.raises(DataError, match="does not exist"):
        reader(str(tmp_path / "none.png"))
