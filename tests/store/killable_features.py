"""Writers of image features that tests kill."""

from __future__ import annotations

from pathlib import Path

import torch

from icltool.store import image_features
from icltool.store.artefact import Header
from icltool.store.image_features import SCHEMA, ImageFeatureFile
from icltool.store.provenance import Provenance

HEADER = Header(SCHEMA, Provenance({"icltool": "1"}, ""), {"model": "m", "model_fingerprint": "f"})


def opened(path: Path, header: Header = HEADER, limit: int = 2**40) -> ImageFeatureFile:
    return ImageFeatureFile(path, header, limit)


def features_of(image: Path) -> torch.Tensor:
    """Features that name the image; shapes and types differ."""
    number = int(image.stem)
    dtype = (torch.float32, torch.bfloat16, torch.float16)[number % 3]
    return torch.full((1 + number % 4, 5), float(number)).to(dtype)


def work(path: Path, images: list[Path]) -> None:
    """Adds what is missing, two images at a time."""
    image_features._IMAGES = 2  # in a process that ends
    file = opened(path)
    missing = [p for p in images if not file.get([str(p)])]
    for start in range(0, len(missing), 2):
        file.put({str(p): features_of(p) for p in missing[start : start + 2]})
    file.close()


def check(path: Path, images: list[Path]) -> int:
    """How many images a reader finds, after it has compared each of them."""
    file = opened(path)
    stored = file.get([str(p) for p in images])
    for image, features in stored.items():
        expected = features_of(Path(image))
        assert features.dtype == expected.dtype
        assert torch.equal(features, expected)
    assert not file.notes, file.notes
    file.close(finished=False)
    return len(stored)
