"""Opening images of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from icltool.components.models.shared.images import read_image
from icltool.contracts import open_image
from icltool.errors import DataError


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000"])
def test_images_of_all_kinds_are_opened(kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (12, 8), "red").save(tmp_path / "image", kind)
    with open_image(tmp_path / "image") as image:
        image.load()
        assert (image.format, image.size) == (kind, (12, 8))


def test_no_image_is_a_program_to_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript on to Ghostscript, whatever the file is called."""
    Image.new("RGB", (12, 8), "red").save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "EPS", "it would be opened otherwise"
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(UnidentifiedImageError):
        open_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg cannot be read: it is not an image of a known format"):
        read_image(str(tmp_path / "a.jpg"))
