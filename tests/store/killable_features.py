"""Writers of image features that a test kills: `python killable_features.py FILE COUNT` forks one for each line it reads.

A line is the number of the file operation before which the writer dies (0: never). It answers "END LEN", with "killed" or
"finished" for END, and for LEN how many images the next process finds, after it has read each of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from icltool.store import image_features
from icltool.store.artefact import Header, Provenance
from icltool.store.image_features import SCHEMA, ImageFeatureFile
from tests.store.killable import kill_self_at

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
    file = opened(path)
    missing = [p for p in images if not file.get([str(p)])]
    for start in range(0, len(missing), 2):
        file.put({str(p): features_of(p) for p in missing[start : start + 2]})
    file.close()


def check(path: Path, images: list[Path]) -> int:
    file = opened(path)
    found = file.get([str(p) for p in images])
    for image, features in found.items():
        expected = features_of(Path(image))
        assert features.dtype == expected.dtype
        assert torch.equal(features, expected)
    assert not file.notes, file.notes
    file.close(finished=False)
    return len(found)


def main() -> None:
    path, count = Path(sys.argv[1]), int(sys.argv[2])
    images = [path.parent / f"{number}.jpg" for number in range(count)]
    image_features._IMAGES = 2
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            if int(line):
                kill_self_at(int(line))
            work(path, images)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("finished" if status == 0 else "killed", check(path, images), flush=True)


if __name__ == "__main__":
    main()
