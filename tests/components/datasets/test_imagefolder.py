"""A folder of images for each class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from icltool.components.datasets.imagefolder import ImageFolderOptions, ImageFolderReader
from icltool.contracts import Example
from icltool.errors import DataError
from icltool.plugin.manager import component
from icltool.testing import QuietProgress, check_dataset
from tests.components.datasets.builders import write_image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    size = 16
    for split, count in (("train", 4), ("val", 2)):
        for name in ("002.Brown_dog", "001.Cat", "003.cat"):
            for number in range(count):
                size += 1
                write_image(tmp_path / "data" / split / name / f"{number}.png", size)
    return tmp_path / "data"


def read(root: Path, **options: Any) -> dict[str, list[Example]]:
    reader = ImageFolderReader(ImageFolderOptions(**options))
    reader.check(root, "classification", False)
    splits = reader.read(root, "classification", Path("unused"), QuietProgress())
    return {split.name: list(split.examples) for split in splits}


def refused(root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(root, **options)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_conforms(root: Path, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    check_dataset(lambda: component("datasets", "imagefolder"), root, "classification", tmp_path / "workspace")


def test_classes_are_named_after_folders(root: Path) -> None:
    splits = read(root)
    assert {e.choices for split in splits.values() for e in split} == {("Cat", "Brown dog", "cat")}
    assert [e.label for e in splits["train"]] == ["Cat"] * 4 + ["Brown dog"] * 4 + ["cat"] * 4
    assert all(e.text == e.label for e in splits["train"])
    assert all(e.text == "" for e in splits["validation"]), "a query's label is not in its text"
    remarks = ImageFolderReader(ImageFolderOptions()).check(root, "classification", False).remarks
    assert remarks == (
        "names of classes: 001.Cat as Cat, 002.Brown_dog as Brown dog, 003.cat as cat "
        "(--option raw_names=true takes the folders' names)",
    )
    assert read(root, raw_names=True)["train"][0].choices == ("001.Cat", "002.Brown_dog", "003.cat")


@pytest.mark.parametrize("names", ["tabby\nhound\ntabby\n", "003.cat\ttabby\n001.Cat\ttabby\n002.Brown_dog\thound\n"])
def test_names_from_a_file(root: Path, names: str) -> None:
    file = root / "names.txt"
    file.write_text(names)
    splits = read(root, names=file)
    assert {e.choices for e in splits["train"]} == {("tabby", "hound")}, "folders of one name are one class"
    assert Counter(e.label for e in splits["train"]) == {"tabby": 8, "hound": 4}
    file.write_text("tabby\nhound\n")
    assert refused(root, names=file) == f"{file} has 2 names for 3 folders"
    file.write_text("001.Cat\ttabby\n")
    assert refused(root, names=file) == f"{file} has no name for 002.Brown_dog, 003.cat"


@pytest.mark.parametrize("flat", [False, True])
def test_without_queries_a_share_of_each_class_is_held_out(root: Path, flat: bool) -> None:
    every = {e.image for e in read(root)["train"]}
    for path in sorted((root / "val").rglob("*.png")):
        path.unlink()
    for path in sorted((root / "val").rglob("*"), reverse=True):
        path.rmdir()
    (root / "val").rmdir()
    base = root / "train" if flat else root
    splits = read(base, validation=0.3)
    assert Counter(e.label for e in splits["validation"]) == {"Cat": 1, "Brown dog": 1, "cat": 1}
    assert {e.image for split in splits.values() for e in split} == every
    other = read(base, validation=0.3, seed=5)
    assert [e.image for e in other["validation"]] != [e.image for e in splits["validation"]]


def test_images_of_each_class_are_limited_by_seed(root: Path) -> None:
    two, three = (read(root, per_class=n)["train"] for n in (2, 3))
    assert Counter(e.label for e in two) == {"Cat": 2, "Brown dog": 2, "cat": 2}
    assert {e.id for e in two} < {e.id for e in three}
    assert [e.id for e in read(root, per_class=2, seed=1)["train"]] != [e.id for e in two]
    assert len(read(root, per_class=2)["validation"]) == 6


def test_test_is_the_queries_where_there_is_no_val(root: Path) -> None:
    (root / "val").rename(root / "test")
    assert len(read(root)["validation"]) == 6
    (remark, _) = ImageFolderReader(ImageFolderOptions()).check(root, "classification", False).remarks
    assert remark.startswith("data: there is no validation split, so the test split holds the queries")


def test_other_layouts_are_refused(root: Path, tmp_path: Path) -> None:
    write_image(root / "train" / "001.Cat" / "deep" / "x.png")
    assert refused(root).startswith(f"{root / 'train' / '001.Cat'} holds a folder, deep")
    write_image(tmp_path / "flat" / "x.png")
    assert refused(tmp_path / "flat") == f"{tmp_path / 'flat'} holds images, but no folders of classes"
    write_image(tmp_path / "one" / "cat" / "x.png")
    assert refused(tmp_path / "one") == f"{tmp_path / 'one'} has one class, cat"
    write_image(tmp_path / "queries" / "val" / "cat" / "x.png")
    assert refused(tmp_path / "queries") == f"{tmp_path / 'queries'} has no folder train"
    assert refused(root, validation="dev") == f"{root} has no folder dev of queries"
