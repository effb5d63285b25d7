"""The clues and inferences of a world about the shape's region, with the fields of the Sherlock files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from icltool.contracts import group_code
from icltool.world.annotations import SPLITS, Shot
from icltool.world.render import SIZE, outline
from icltool.world.scenes import Lexicon

#: The clue, and the inference from it: the two words, which the clue does not contain.
CLUES = ("a thing here", "something with a colour", "a shape on a wall", "an object with an edge")
INFERENCES = ("this is a {} {}", "it must be a {} {}", "somebody put a {} {} here", "they call it a {} {}")
#: The number of inferences per image.
PER_IMAGE = 2
#: Retrieval in Sherlock's validation file is among the records with the same index.
SPLIT_SIZE = 100
_FOLDERS = ("VG_100K", "VG_100K_2")


def region_file_name(split: str) -> str:
    """The official name of the file of "train" or "val"."""
    return "sherlock_train_v1_1.json" if split == "train" else "sherlock_val_with_split_idxs_v1_1.json"


def region_image(shot: Shot) -> str:
    """The path of an image below the images' folder: a third each in VCR's folder and in Visual Genome's two."""
    kind = shot.image_id % 3
    if kind == 0:
        return f"vcr1images/shapes/{shot.image_id:012d}.jpg"
    return f"vg/images/{_FOLDERS[kind - 1]}/{shot.image_id:012d}.jpg"


def region_file(
    shots: Sequence[Shot], lexicon: Lexicon, drawn_by: Sequence[int], split: str
) -> list[dict[str, object]]:
    """The content of a split's file; `drawn_by` is the key by which its images were drawn."""
    rng = np.random.default_rng([0x5E6107, drawn_by[0], SPLITS.index(split)])
    rows: list[dict[str, object]] = []
    for shot in shots:
        left, top, right, bottom = outline(np.random.default_rng([0xDA7A5E7, *drawn_by, shot.image_id]))
        box = {"left": left, "top": top, "width": right - left, "height": bottom - top}
        clues, forms = rng.permutation(len(CLUES))[:PER_IMAGE], rng.permutation(len(INFERENCES))[:PER_IMAGE]
        for number, (clue, form) in enumerate(zip(clues, forms, strict=True)):
            inputs = {
                "image": {"url": _url(shot), "width": SIZE, "height": SIZE},
                "bboxes": [box],
                "clue": CLUES[clue],
                "confidence": float(rng.integers(1, 4)),
                "obs_idx": number,
            }
            inference = INFERENCES[form].format(*lexicon.words(shot.scene))
            instance = f"{shot.image_id:012x}{number:020x}"
            rows.append({"inputs": inputs, "targets": {"inference": inference}, "instance_id": instance})
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    if split == "train":
        return shuffled
    return [{**row, "split_idx": position // SPLIT_SIZE} for position, row in enumerate(shuffled)]


def region_groups(shots: Mapping[str, Sequence[Shot]]) -> dict[str, dict[str, str]]:
    """Groups of near-duplicates by the code of an image's path in its release."""
    return {
        split: {str(group_code(region_image(shot).removeprefix("vg/images/"))): shot.scene.name for shot in split_shots}
        for split, split_shots in shots.items()
    }


def _url(shot: Shot) -> str:
    """The URL as in the official files: the last two components give the path, "VG_" the source."""
    host = (
        "https://cs.stanford.edu/people/rak248" if shot.image_id % 3 else "http://s3-us-west-2.amazonaws.com/ai2-rowanz"
    )
    path = region_image(shot).removeprefix("vg/images/")
    return f"{host}/{path}"
