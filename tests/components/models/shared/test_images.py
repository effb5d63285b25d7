"""Images of every kind become RGB as people see them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from icltool.components.models.shared.images import read_image
from icltool.errors import DataError

RAMP = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)


def reread(image: Image.Image, path: Path) -> np.ndarray:
    """The pixels [H, W, 3] after writing and reading."""
    image.save(path)
    actual = read_image(str(path))
    assert actual.mode == "RGB"
    return np.asarray(actual)


def greys(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[:, :, None], 3, axis=2)


def test_greyscale_of_8_and_1_bits(tmp_path: Path) -> None:
    np.testing.assert_array_equal(reread(Image.fromarray(RAMP), tmp_path / "l.png"), greys(RAMP))
    black_or_white = np.where(RAMP > 127, 255, 0).astype(np.uint8)
    actual = reread(Image.fromarray(black_or_white).convert("1"), tmp_path / "one.png")
    np.testing.assert_array_equal(actual, greys(black_or_white))


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_greyscale_of_16_bits_keeps_its_shades(tmp_path: Path, name: str) -> None:
    image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert image.mode == "I;16"
    np.testing.assert_array_equal(reread(image, tmp_path / name), greys(RAMP))


def test_cmyk(tmp_path: Path) -> None:
    actual = reread(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), tmp_path / "x.jpg")
    assert (abs(actual.astype(int) - (255, 0, 0)) < 12).all()


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    pixels[0, 1] = (0, 0, 0, 128)
    actual = reread(Image.fromarray(pixels), tmp_path / "rgba.png")
    assert actual.tolist() == [[[10, 20, 30], [127, 127, 127]], [[255, 255, 255], [255, 255, 255]]]
    actual = reread(Image.fromarray(pixels).convert("LA"), tmp_path / "la.png")
    assert actual[1].tolist() == [[255, 255, 255], [255, 255, 255]]


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putdata([0, 1])
    assert reread(image, tmp_path / "p.png").tolist() == [[[200, 0, 0], [0, 0, 200]]]
    image.info["transparency"] = 1
    assert reread(image, tmp_path / "t.png").tolist() == [[[200, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = upright[0, 1] = upright[2, 5] = 255
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
            5: lambda a: a.transpose(1, 0, 2), 6: np.rot90, 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
            8: lambda a: np.rot90(a, -1)}  # fmt: skip
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(str(tmp_path / "x.png"))), upright)


def test_colour_profiles_do_not_disturb(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.png", icc_profile=profile)
    assert read_image(str(tmp_path / "x.png")).getpixel((3, 3)) == (255, 0, 0)


def test_an_image_in_an_archive_is_the_same(tmp_path: Path) -> None:
    Image.fromarray(greys(RAMP)).save(tmp_path / "x.jpg")
    with zipfile.ZipFile(tmp_path / "train2017.zip", "w") as archive:
        archive.write(tmp_path / "x.jpg", "train2017/x.jpg")
    plain, held = (read_image(str(tmp_path / p)) for p in ("x.jpg", "train2017.zip/train2017/x.jpg"))
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(held))


def test_faults_name_the_image(tmp_path: Path) -> None:
    whole = tmp_path / "x.jpg"
    Image.effect_noise((64, 64), 90).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:700])
    (tmp_path / "text.jpg").write_text("no image")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "cut.jpg", "cut.jpg")
    (tmp_path / "b.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:500])
    for name, fault in (
        ("none.jpg", "does not exist"),
        ("a.zip/none.jpg", "does not exist"),
        ("cut.jpg", "cannot be read: "),
        ("a.zip/cut.jpg", "cannot be read: "),
        ("text.jpg", "cannot be read: it is not an image of a known format"),
        ("b.zip/cut.jpg", "cannot be read: it is cut off or no zip archive"),
    ):
        with pytest.raises(DataError) as caught:
            read_image(str(tmp_path / name))
        assert caught.value.message.startswith(f"image {tmp_path / name} {fault}")
        assert "\n" not in caught.value.message


def test_a_bomb_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (300, 300)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(DataError, match="more than the 20,000 that are read"):
        read_image(str(tmp_path / "x.png"))
