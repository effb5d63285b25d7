"""Flickr30k in Karpathy's split, from small files in his layout and in that of LAVIS."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from icltool.components.datasets.flickr30k import Flickr30kReader, FlickrOptions
from icltool.errors import DataError
from icltool.testing import check_dataset
from tests.components.datasets.builders import edit, read_all, truncate, write_image, write_json

IMAGES = {
    "train": {"1000092795": [" Two young guys. ", "Two men\nin green."], "36979": ["A dog."]},
    "val": {"10002456": ["Several men.", "Workers."]},
    "test": {"1007129816": ["The man with pierced ears.", "A man with glasses."]},
}


def karpathy() -> dict[str, Any]:
    entries = [(split, name, captions) for split, images in IMAGES.items() for name, captions in images.items()]
    images = [
        {
            "sentids": list(range(len(captions))),
            "imgid": number,
            "filename": f"{name}.jpg",
            "split": split,
            "sentences": [{"tokens": text.split(), "raw": text, "imgid": number} for text in captions],
        }
        for number, (split, name, captions) in enumerate(entries)
    ]
    return {"dataset": "flickr30k", "images": images}


@pytest.fixture(params=["whole", "lavis"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for split, images in IMAGES.items():
        for name in images:
            write_image(tmp_path / "flickr30k-images" / f"{name}.jpg")
        rows = [
            {"image": f"flickr30k-images/{name}.jpg", "caption": text, "image_id": name}
            for name, captions in images.items()
            for text in ([captions] if split != "train" else captions)
        ]
        if request.param == "lavis":
            write_json(tmp_path / f"flickr30k_{split}.json", rows)
    if request.param == "whole":
        write_json(tmp_path / "dataset_flickr30k.json", karpathy())
    return tmp_path


def reader(**options: Any) -> Flickr30kReader:
    return Flickr30kReader(FlickrOptions(**options))


def test_it_conforms(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_dataset(reader(), root, "caption", tmp_path_factory.mktemp("ws"))


def test_both_forms_give_the_same_examples(root: Path) -> None:
    splits = read_all(reader(), root, "caption")
    assert {name: [e.id for e in examples] for name, examples in splits.items()} == {
        "train": [1000092795, 36979], "validation": [1007129816], "development": [10002456],
    }  # fmt: skip
    first = splits["train"][0]
    assert first.references == ("Two young guys.", "Two men in green.")
    assert (first.label, first.text, first.image_id) == ("Two young guys.", "Two young guys.", 1000092795)
    assert first.image == str(root / "flickr30k-images" / "1000092795.jpg")
    assert list(read_all(reader(queries="val"), root, "caption")) == ["train", "validation"]


def test_counts_and_archives(root: Path) -> None:
    with zipfile.ZipFile(root / "flickr30k-images.zip", "w") as packed:
        for file in sorted((root / "flickr30k-images").iterdir()):
            packed.write(file, file.relative_to(root))
            file.unlink()
    (root / "flickr30k-images").rmdir()
    remarks = reader().check(root, "caption", True).remarks
    assert any(line.endswith("has 2 images; the official split has 29,000") for line in remarks)
    assert str(root / "flickr30k-images.zip") in read_all(reader(), root, "caption")["train"][0].image


def test_without_the_split_for_development(root: Path) -> None:
    file = root / "flickr30k_val.json"
    if file.exists():
        file.unlink()
        assert list(read_all(reader(), root, "caption")) == ["train", "validation"]
        (root / "flickr30k_test.json").unlink()
        with pytest.raises(DataError, match=r"no Flickr30k in .*: neither dataset_flickr30k.json nor LAVIS'"):
            reader().check(root, "caption", False)


def test_faults(root: Path) -> None:
    truncate(root / "flickr30k-images" / "36979.jpg")
    with pytest.raises(DataError, match=r"36979.jpg"):
        reader().check(root, "caption", True)
    (root / "flickr30k-images" / "36979.jpg").unlink()
    with pytest.raises(DataError, match=r"names 1 image missing from .*flickr30k-images: 36979.jpg") as caught:
        reader().check(root, "caption", False)
    assert "karpathy/deepimagesent" in str(caught.value.hint)
    whole = root / "dataset_flickr30k.json"
    if whole.exists():
        edit(whole, lambda content: content["images"][1].pop("sentences"))
        with pytest.raises(DataError, match="entry 1 of 'images' is not an image with captions"):
            reader().check(root, "caption", False)
        edit(whole, lambda content: content.update(dataset="coco"))
        with pytest.raises(DataError, match="belongs to another data set: 'coco', not 'flickr30k'"):
            reader().check(root, "caption", False)
