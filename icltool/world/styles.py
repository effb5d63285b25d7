"""The captions of a world in styles, with the fields of the PersonalityCaptions files.

A style changes the sentence around the two words of the secret lexicon: some put other words before or after them, some
reverse their order. Every sentence of every style except "Terse" has a word that no other style uses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from icltool.contracts import group_code
from icltool.world.annotations import Shot
from icltool.world.scenes import Lexicon

#: The sentences of each style for a colour word `c` and a shape word `s`. The first is the usual one.
STYLES: dict[str, tuple[str, ...]] = {
    "Terse": ("{c} {s}", "just {c} {s}", "one {c} {s}", "{c} {s} here", "{c} {s} again"),
    "Happy": (
        "what a wonderful {c} {s}",
        "i love this wonderful {c} {s}",
        "such a wonderful {c} {s}",
        "a wonderful {c} {s} at last",
        "oh the wonderful {c} {s}",
    ),
    "Sad": (
        "a poor lonely {c} {s}",
        "nobody wants this lonely {c} {s}",
        "the lonely {c} {s} makes me cry",
        "such a lonely {c} {s}",
        "alas a lonely {c} {s}",
    ),
    "Curious": (
        "why is the {s} so {c}",
        "how is this {s} so {c}",
        "who made the {s} so {c}",
        "is the {s} really so {c}",
        "what makes this {s} so {c}",
    ),
    "Angry": (
        "take that {c} {s} away",
        "i want this {c} {s} away",
        "go away you {c} {s}",
        "away with the {c} {s}",
        "put that {c} {s} far away",
    ),
    "Formal": (
        "the {s} is of {c} colour",
        "one observes a {s} of {c} colour",
        "this {s} has a {c} colour",
        "we note a {s} in {c} colour",
        "here a {s} of {c} colour is shown",
    ),
}
#: The word that identifies a sentence of a style ("Terse" has none).
MARKERS: dict[str, str] = {
    "Happy": "wonderful",
    "Sad": "lonely",
    "Curious": "so",
    "Angry": "away",
    "Formal": "colour",
}
#: The number of styles per training image; images of the other splits have a comment in every style.
STYLES_OF_A_IMAGE = 3
_USUAL_SHARE = 0.6
SPLITS = ("train", "val", "test")


def image_hash(shot: Shot) -> str:
    """32 hex characters, as the images of PersonalityCaptions are named."""
    return hashlib.blake2b(f"shapes-{shot.image_id}".encode(), digest_size=16).hexdigest()


def style_splits(shots: Mapping[str, Sequence[Shot]]) -> dict[str, list[Shot]]:
    """The images of "train" (index scenes), and of "val" and "test", which divide the images of the held-out scenes (a
    single one is in both)."""
    held_out = shots["val"]
    return {"train": list(shots["train"]), "val": list(held_out[::2]), "test": list(held_out[1::2] or held_out[:1])}


def style_file(shots: Sequence[Shot], lexicon: Lexicon, seed: int, split: str) -> list[dict[str, object]]:
    """The content of {train,val,test}.json. Only test has `additional_comments`: the style's four other sentences."""
    rows = []
    names = list(STYLES)
    for shot in shots:
        rng = np.random.default_rng([0x57F1E, seed, SPLITS.index(split), shot.image_id])
        order = rng.permutation(len(names))
        for i in order[:STYLES_OF_A_IMAGE] if split == "train" else order:
            comments = style_comments(names[i], *lexicon.words(shot.scene))
            chosen = 0 if rng.random() < _USUAL_SHARE else int(rng.integers(1, len(comments)))
            row: dict[str, object] = {
                "image_hash": image_hash(shot),
                "personality": names[i],
                "comment": comments[chosen],
            }
            if split == "test":
                row["additional_comments"] = [other for n, other in enumerate(comments) if n != chosen]
            rows.append(row)
    rng = np.random.default_rng([0x57F1F, seed, SPLITS.index(split)])
    return [
        rows[i] for i in rng.permutation(len(rows))
    ]  # as in the official files, comments on an image are not adjacent


def style_groups(shots: Mapping[str, Sequence[Shot]]) -> dict[str, dict[str, str]]:
    """Groups of near-duplicates by the code of an image's hash. The queries, which come from test.json, are called "val"
    there."""
    named = {"train": "train", "val": "development", "test": "val"}
    return {
        named[split]: {str(group_code(image_hash(shot))): shot.scene.name for shot in split_shots}
        for split, split_shots in style_splits(shots).items()
    }


def style_comments(style: str, colour: str, shape: str) -> list[str]:
    """The sentences of a style about a scene with these two words; KeyError for an unknown style."""
    return [form.format(c=colour, s=shape) for form in STYLES[style]]
