"""Samples with which an encoder is tried when it is loaded."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

#: A text on which different tokenizers differ.
SAMPLE_TEXT = "A photo of 2 red, well-worn umbrellas."


@contextmanager
def sample_image() -> Iterator[str]:
    """The path of a small image, which exists in the body."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.png"
        Image.new("RGB", (64, 48), "grey").save(path)
        yield str(path)
