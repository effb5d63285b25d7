"""The two forms of Karpathy's split of COCO or Flickr30k: his one file, and LAVIS' file for each split."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, cast

from icltool.components.datasets.json_stream import read_json
from icltool.components.datasets.official import expect_kind
from icltool.errors import DataError

WHOLE = "dataset_coco.json"
#: By Karpathy's split name; the train file also holds restval.
LAVIS = {"train": "coco_karpathy_train.json", "val": "coco_karpathy_val.json", "test": "coco_karpathy_test.json"}
FLICKR_WHOLE = "dataset_flickr30k.json"
FLICKR_LAVIS = {split: f"flickr30k_{split}.json" for split in ("train", "val", "test")}
_LARGEST = 2**63 - 1
_NUMBERED = re.compile(r"(\d{1,18})\.\w+$", re.ASCII)


class KarpathyImage(NamedTuple):
    """An image with its captions in the order of the file.

    `id` is COCO's image id, or the number in a file name of Flickr30k; `file` is its place in the release
    ("val2014/COCO_val2014_000000391895.jpg"), `split` is "train", "restval", "val" or "test".
    """

    id: int
    file: str
    split: str
    captions: tuple[str, ...]


def read_whole(path: Path, splits: frozenset[str], name: str = "coco") -> list[KarpathyImage]:
    """The images of these splits in dataset_coco.json, or that of another `name`. Raises DataError, which names the file and
    the faulty entry."""
    hint = f"put dataset_{name}.json of Karpathy's caption_datasets.zip there"

    def convert(key: str, entry: object) -> object:
        return _image(entry, name) if key == "images" else entry

    content = read_json(path, hint, convert)
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a Karpathy split: expected an object with a list of images", hint)
    dataset = content.get("dataset", name)
    if dataset != name:
        raise DataError(f"{path} belongs to another data set: {str(dataset)[:40]!r}, not {name!r}", hint)
    listed = content.get("images")
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], KarpathyImage):
        expect_kind(path, content, "captions in Karpathy's format", hint)
    images: list[KarpathyImage] = []
    for position, image in enumerate(listed or ()):
        if not isinstance(image, KarpathyImage):
            raise DataError(
                f"{path}: entry {position} of 'images' is not an image with captions",
                f"it needs {'cocoid, filepath, ' if name == 'coco' else ''}filename, split and sentences with raw; the file is "
                "damaged",
            )
        images += [image] if image.split in splits else []
    return images


def _image(entry: object, name: str) -> object:
    """The entry as KarpathyImage, or unchanged if it is not one."""
    if not isinstance(entry, dict):
        return entry
    image_id, sentences = entry.get("cocoid"), entry.get("sentences")
    folder, file, split = (entry.get(field) for field in ("filepath", "filename", "split"))
    if name != "coco":  # no filepath or cocoid there
        number = _NUMBERED.search(file) if isinstance(file, str) else None
        image_id, folder = int(number[1]) if number else None, ""
    texts = all(isinstance(text, str) for text in (folder, file, split))
    if type(image_id) is not int or not 0 <= image_id <= _LARGEST or not texts or not isinstance(sentences, list):
        return entry
    captions = tuple(sentence.get("raw") if isinstance(sentence, dict) else None for sentence in sentences)
    if not all(isinstance(caption, str) for caption in captions):
        return entry
    return KarpathyImage(
        image_id, f"{folder}/{file}".lstrip("/"), sys.intern(str(split)), cast("tuple[str, ...]", captions)
    )


def read_lavis(files: Mapping[str, Path], splits: frozenset[str]) -> list[KarpathyImage]:
    """The images of these splits in LAVIS' files, by split name. Raises DataError, which names the file and the faulty entry.

    The train file has one entry per caption, the others one per image with the list of its captions. LAVIS names images
    of the whole release; those of val2014 in the train file are restval.
    """
    images: list[KarpathyImage] = []
    for split, path in files.items():
        if split in splits or (split == "train" and "restval" in splits):
            images += [image for image in _gathered(path, split, _entries(path)) if image.split in splits]
    return images


def _entries(path: Path) -> list[tuple[str, list[str]]]:
    """(image, captions) of each entry."""
    hint = f"put LAVIS' {path.name} there"

    def convert(key: str, entry: object) -> object:
        return (entry.get("image"), entry.get("caption")) if isinstance(entry, dict) else entry

    listed = read_json(path, hint, convert)
    if not isinstance(listed, list):
        raise DataError(f"{path} holds no captions: expected a list of images with captions", hint)
    entries = []
    for position, entry in enumerate(listed):
        file, captions = entry if isinstance(entry, tuple) else (None, None)
        texts = captions if isinstance(captions, list) else [captions]
        if not isinstance(file, str) or not _NUMBERED.search(file) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{path}: entry {position} is not an image with its caption", hint)
        entries.append((file, texts))
    return entries


def _gathered(path: Path, split: str, entries: Iterable[tuple[str, list[str]]]) -> list[KarpathyImage]:
    """One image for each file, with the captions of all its entries."""
    captions: dict[str, list[str]] = {}
    for file, texts in entries:
        captions.setdefault(file, []).extend(texts)
    images = []
    for file, texts in captions.items():
        number = _NUMBERED.search(file)
        part = "restval" if split == "train" and file.startswith("val2014/") else split
        images.append(KarpathyImage(int(number[1]) if number else -1, file, part, tuple(texts)))
    return images
