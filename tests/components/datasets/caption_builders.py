"""Sherlock and PersonalityCaptions in their official layouts, as real files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.components.datasets.builders import write_image, write_json

TRAIN = "sherlock_train_v1_1.json"
VALIDATION = "sherlock_val_with_split_idxs_v1_1.json"
VG = "https://cs.stanford.edu/people/rak248/{}"
VCR = "http://s3-us-west-2.amazonaws.com/ai2-rowanz/vcr1images/{}"
Box = tuple[int, int, int, int]

#: (image, boxes, clue, inference), in the order of the file; images have 48 x 48 pixels.
SEEN: dict[str, list[tuple[str, list[Box], str, str]]] = {
    TRAIN: [
        ("lsmdc_1/a@1.jpg", [(4, 6, 20, 10)], "20 mph sign", "this is a residential area"),
        ("VG_100K/7.jpg", [(0, 0, 10, 10), (30, 30, 10, 10)], "a cake ", "it is a\nbirthday"),
        ("lsmdc_1/a@1.jpg", [(4, 6, 20, 10)], "a sign", "children play here"),
    ],
    VALIDATION: [
        ("VG_100K_2/8.jpg", [(1, 2, 30, 40)], "snow", "it is cold"),
        ("lsmdc_2/b@1.jpg", [(5, 5, 5, 5)], "an umbrella", "rain is likely"),
        ("VG_100K_2/9.jpg", [(5, 5, 9, 9)], "crumbs", "someone ate"),
        ("VG_100K_2/9.jpg", [(5, 5, 9, 9)], "a plate", "the meal is over"),
    ],
}


def instance_id(image: str, inference: str) -> str:
    """32 hex characters, as the official ids are."""
    return hashlib.md5(f"{image} {inference}".encode(), usedforsecurity=False).hexdigest()


def record(image: str, boxes: Sequence[Box], clue: str, inference: str, chunk: int | None = None) -> dict[str, Any]:
    record_fields: dict[str, Any] = {
        "inputs": {
            "image": {"url": (VG if "VG_" in image else VCR).format(image), "width": 48, "height": 48},
            "bboxes": [dict(zip(("left", "top", "width", "height"), box, strict=True)) for box in boxes],
            "clue": clue,
            "confidence": 3.0,
            "obs_idx": 1,
        },
        "targets": {"inference": inference},
        "instance_id": instance_id(image, inference),
    }
    return record_fields if chunk is None else {**record_fields, "split_idx": chunk}


def image_path(root: Path, image: str) -> Path:
    return root / "vg" / "images" / image if "VG_" in image else root / "vcr1images" / image


def write_sherlock(root: Path, seen: Mapping[str, Sequence[tuple[str, Sequence[Box], str, str]]] = SEEN) -> Path:
    """`root` becomes a folder that holds sherlock_dataset, vcr1images and vg/images."""
    for name, listed in seen.items():
        chunk = 3 if name == VALIDATION else None
        write_json(root / "sherlock_dataset" / name, [record(*entry, chunk=chunk) for entry in listed])
        for image, *_ in listed:
            write_image(image_path(root, image))
    return root


#: (image hash, personality, comment, additional comments)
WRITTEN: dict[str, list[tuple[str, str, str, list[str]]]] = {
    "train.json": [
        ("aa", "Sweet", "what a lovely dog", []),
        ("bb", "Anxious", "will it\nbite?", []),
        ("aa", "Sarcastic", "oh great, a dog", []),
    ],
    "val.json": [("cc", "Sweet", "so pretty", [])],
    "test.json": [
        ("dd", "Sweet", "I love it", ["so lovely", "", "how cute"]),
        ("ee", "Anxious", "too high!", ["I fear it"]),
    ],
}
STYLES = ("Adventurous", "Anxious", "Sarcastic", "Sweet")


def comment(image: str, personality: str, text: str, further: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"image_hash": image, "personality": personality, "comment": text, "candidates": ["x"]}
    return {**fields, "additional_comments": list(further)} if further else fields


def write_personality_captions(
    root: Path, written: Mapping[str, Sequence[tuple[str, str, str, Sequence[str]]]] = WRITTEN
) -> Path:
    """`root` becomes a folder that holds personality_captions and yfcc_images."""
    folder = root / "personality_captions"
    for name, listed in written.items():
        write_json(folder / name, [comment(*entry) for entry in listed])
        for image, *_ in listed:
            write_image(root / "yfcc_images" / f"{image}.jpg")
    (folder / "personalities.txt").write_text("\n".join(STYLES) + "\n")
    return root
