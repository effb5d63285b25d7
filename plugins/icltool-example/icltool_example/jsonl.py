"""A dataset reader: a folder of images with train.jsonl and validation.jsonl."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icltool import DataError, Example, PreparedSplit, Progress, ReadReport, open_image

SPLITS = ("train", "validation")
#: How many images of a split `check` opens where not all are to be verified.
SAMPLE = 50


class JsonlReader:
    """Reads lines such as {"image": "images/1.jpg", "caption": "a red bus"} or {..., "caption": ["one", "another"]}.

    Image paths are relative to the folder. The first caption is the label, all are references; an example's id is the
    number of its line, from 1. An optional "group" names near-duplicates, which never serve as demonstrations of one
    another. Blank lines are passed over.
    """

    name = "jsonl"
    tasks = ("caption",)

    def check(self, root: Path | None, task: str, verify: bool) -> ReadReport:
        """Reads every line, sees that every image is there, and opens a sample of them, or all with `verify`."""
        folder = _folder(root)
        for split in SPLITS:
            examples = list(_examples(folder, split))
            if not examples:
                raise DataError(f"{folder / split}.jsonl holds no example", "write one JSON object per line")
            step = 1 if verify else max(1, len(examples) // SAMPLE)
            for number, example in enumerate(examples):
                if not Path(example.image).is_file():
                    raise DataError(f"image {example.image} of {split}.jsonl, line {example.id}, does not exist")
                if number % step == 0:
                    _open(Path(example.image))
        return ReadReport(tuple(folder / f"{split}.jsonl" for split in SPLITS))

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """Both splits, one example after the other."""
        folder = _folder(root)
        for split in SPLITS:
            count = sum(1 for _ in _examples(folder, split))
            yield PreparedSplit(split, count, _examples(folder, split))


def _folder(root: Path | None) -> Path:
    if root is None:
        raise DataError("data set 'jsonl' needs a folder", "icltool prepare jsonl --root FOLDER")
    folder = root.expanduser().absolute()
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "name the folder that holds train.jsonl and validation.jsonl")
    return folder


def _examples(folder: Path, split: str) -> Iterator[Example]:
    path = folder / f"{split}.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _example(folder, path, number, line)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", "write one JSON object per line") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason}", "save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _example(folder: Path, path: Path, number: int, line: str) -> Example:
    where = f"{path}, line {number}"
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg})", "each line is one JSON object") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: not an object", 'write {"image": "…", "caption": "…"}')
    image, captions, group = record.get("image"), record.get("caption"), record.get("group", "")
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(image, str) or not image:
        raise DataError(f"{where}: 'image' is missing", "give the image's path relative to the folder")
    if not isinstance(captions, list) or not captions or not all(isinstance(c, str) and c.strip() for c in captions):
        raise DataError(f"{where}: 'caption' must be a text or a list of texts, none of them empty")
    if not isinstance(group, str):
        raise DataError(f"{where}: 'group' must be a text")
    return Example(
        id=number,
        image=str(folder / image),
        image_id=_image_id(image),
        text=captions[0],
        label=captions[0],
        references=tuple(captions),
        group=group,
    )


def _image_id(image: str) -> int:
    """The same number for the same path, in either split: this is how icltool sees that two examples share an image."""
    normal = Path(image).as_posix()
    return int.from_bytes(hashlib.blake2b(normal.encode(), digest_size=8).digest(), "big") >> 1


def _open(path: Path) -> None:
    try:
        with open_image(path) as image:
            image.load()
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise DataError(f"image {path} does not open: {error}", "replace it") from error
