"""Images as people have them: malformed metadata, formats that are programs, sizes beyond reason."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageOps

from icltool.commands.caption.entries import check_image
from icltool.commands.report.page.thumbnails import small_image
from icltool.components.datasets.images import expect_readable
from icltool.components.models.shared.images import read_image
from icltool.contracts import load_image
from icltool.contracts.images import LIMIT_VARIABLE, image_size, upright
from icltool.errors import ConfigError, DataError

FOLDER = Path(__file__).parents[1] / "fixtures" / "images"
MALFORMED = sorted(path.name for path in FOLDER.iterdir() if path.suffix != ".avif")


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_metadata_turn_nothing(name: str) -> None:
    path = str(FOLDER / name)
    with Image.open(path) as plain:
        plain.load()
        try:
            expected = ImageOps.exif_transpose(plain)
        except Exception:
            expected = plain
        pixels = np.asarray(expected.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(read_image(path)), pixels)
    assert image_size(path) == read_image(path).size
    expect_readable(FOLDER, [name], "restore it")
    check_image(path)
    assert small_image(path, 4096).size == read_image(path).size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_orientations_are_pillows(orientation: int, kind: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"o.{kind}"
    image.save(path, exif=exif)
    with Image.open(path) as written:
        expected = ImageOps.exif_transpose(written)
        np.testing.assert_array_equal(np.asarray(upright(written)), np.asarray(expected))
    assert image_size(str(path)) == expected.size == ((16, 24) if orientation > 4 else (24, 16))


def _exif_block() -> bytes:
    """A phone's block: orientation, resolutions, a pointer to more."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (0x011A, 5, 1, struct.pack("<I", 80)),
               (0x011B, 5, 1, struct.pack("<I", 88)), (0x8769, 4, 1, struct.pack("<I", 96))]  # fmt: skip
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return (
        b"Exif\0\0"
        + (head + body + struct.pack("<I", 0)).ljust(80, b"\0")
        + struct.pack("<IIII", 72, 1, 72, 1)
        + b"\0" * 32
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 255)), max_size=6))
def test_no_byte_of_the_metadata_matters_but_the_orientation(changes: list[tuple[int, int]]) -> None:
    block = bytearray(_exif_block())
    for place, value in changes:
        block[min(place, len(block) - 1)] = value
    image = Image.new("RGB", (3, 2))
    image.info["exif"] = bytes(block)
    assert upright(image).size in ((3, 2), (2, 3))


def test_what_cannot_be_decoded_is_one_line_and_the_same_everywhere(tmp_path: Path) -> None:
    broken = FOLDER / "broken_yuv.avif"
    with pytest.raises(DataError) as caught:
        read_image(str(broken))
    assert caught.value.message.startswith(f"image {broken} cannot be read: ")
    assert "\n" not in caught.value.message
    with pytest.raises(DataError) as verified:
        expect_readable(FOLDER, [broken.name], "restore it")
    assert verified.value.message == caught.value.message
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match="it is not an image of a known format"):
        load_image(str(tmp_path / "a.jpg"))


def test_a_image_beyond_the_limit_says_so_and_how_to_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    path = tmp_path / "large.png"
    Image.new("1", (400, 300)).save(path)
    monkeypatch.setenv(LIMIT_VARIABLE, "100000")
    for read in (read_image, check_image, lambda p: expect_readable(tmp_path, [Path(p).name], "restore it")):
        with pytest.raises(DataError) as caught:
            read(str(path))
        assert caught.value.message == f"image {path} has 120,000 pixels, more than the 100,000 that are read"
        assert LIMIT_VARIABLE in (caught.value.hint or "")
    monkeypatch.setenv(LIMIT_VARIABLE, "120000")
    assert read_image(str(path)).size == (400, 300)
    monkeypatch.setenv(LIMIT_VARIABLE, "many")
    with pytest.raises(ConfigError, match="is 'many'"):
        read_image(str(path))


def test_floats_are_greys(tmp_path: Path) -> None:
    levels = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    for scale in (1, 255):
        Image.fromarray(levels * scale).save(tmp_path / "f.tif")
        image = np.asarray(read_image(str(tmp_path / "f.tif")))
        assert image[..., 0].tolist() == (levels * 255).round().astype(int).tolist()
