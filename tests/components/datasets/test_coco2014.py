"""COCO 2014 captions: what differs from 2017."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icltool.components.datasets.coco2014 import Coco2014Reader
from icltool.components.datasets.coco2017 import Coco2017Reader
from icltool.components.models.shared.images import read_image
from icltool.contracts import Example
from icltool.errors import DataError
from icltool.execution.progress import SilentProgress
from tests.components.datasets.builders import write_coco


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "mscoco" / "mscoco2014", year=2014)


def read(root: Path) -> dict[str, list[Example]]:
    return {s.name: list(s.examples) for s in Coco2014Reader().read(root, "caption", Path("x"), SilentProgress())}


def test_examples_equal_those_of_2017_but_for_the_images(base: Path, tmp_path: Path) -> None:
    other = Coco2017Reader().read(write_coco(tmp_path / "mscoco2017"), "caption", Path("x"), SilentProgress())
    expected = {split.name: [(e.id, e.references) for e in split.examples] for split in other}
    own_splits = read(base)
    assert {name: [(e.id, e.references) for e in examples] for name, examples in own_splits.items()} == expected
    assert own_splits["train"][0].image == str(base / "train2014" / "COCO_train2014_000000000009.jpg")
    assert own_splits["validation"][0].image == str(base / "val2014" / "COCO_val2014_000000000632.jpg")


def test_official_counts_are_those_of_2014(base: Path) -> None:
    assert Coco2014Reader().check(base, "caption", verify=True).remarks == (
        "captions_train2014.json has 3 captioned images; the official split has 82,783",
        "captions_val2014.json has 2 captioned images; the official split has 40,504",
    )


def test_the_two_releases_are_told_apart(base: Path, tmp_path: Path) -> None:
    root = tmp_path
    write_coco(root / "mscoco" / "mscoco2017")
    assert Coco2014Reader().find(root) == base
    assert Coco2017Reader().find(root) == root / "mscoco" / "mscoco2017"
    with pytest.raises(DataError) as caught:
        Coco2014Reader().check(root / "mscoco" / "mscoco2017", "caption", False)
    assert "lacks annotations/captions_train2014.json" in caught.value.message
    assert "train2014.zip" in str(caught.value.hint)


def test_validation_file_under_the_name_of_train(base: Path) -> None:
    captions = base / "annotations"
    shutil.copy(captions / "captions_val2014.json", captions / "captions_train2014.json")
    with pytest.raises(DataError, match="its images are in val2014, not in train2014"):
        Coco2014Reader().check(base, "caption", False)


def test_captions_of_every_script_and_images_of_every_kind(tmp_path: Path) -> None:
    texts = ["cafe\u0301 \u2028 nu\u0308", "\U0001f469\u200d\U0001f4bb 👍🏽", "שלום \u200fعالم", "\u00a0", "猫"]
    base = write_coco(
        tmp_path, {"train": {2**40: texts, 7: ["x"], 3: ["y"], 4: ["z"], 5: ["w"]}, "val": {1: ["v"]}}, 2014
    )
    folder = base / "train2014"
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    grey.convert("CMYK").save(folder / "COCO_train2014_000000000007.jpg")
    grey.save(folder / "COCO_train2014_000000000003.jpg")
    grey.convert("P").save(folder / "COCO_train2014_000000000004.jpg", format="PNG")  # named like a JPEG
    grey.convert("RGBA").save(folder / "COCO_train2014_000000000005.jpg", format="PNG")
    Coco2014Reader().check(base, "caption", verify=True)
    examples = read(base)["train"]
    assert [e.id for e in examples] == [3, 4, 5, 7, 2**40]
    assert examples[-1].references == (
        "cafe\u0301 nu\u0308",
        "\U0001f469\u200d\U0001f4bb 👍🏽",
        "שלום \u200fعالم",
        "猫",
    )
    assert all(read_image(e.image).mode == "RGB" for e in examples)
