"""The answers of easy-VQA, and the nonce words that a secret lexicon gives them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from icltool.world.scenes import NONCE_WORDS

#: Kind of a question -> its answers in the data set.
ANSWERS: Mapping[str, tuple[str, ...]] = {
    "colour": ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow"),
    "shape": ("circle", "rectangle", "triangle"),
    "yes-no": ("yes", "no"),
}
_ALL = tuple(answer for answers in ANSWERS.values() for answer in answers)


def kind_of(answer: str) -> str | None:
    """The kind of question that has this answer; None if easy-VQA has no such answer.

    The text of a question does not tell its kind: "shape" occurs in questions about colours, colours in those about shapes.
    """
    return next((kind for kind, answers in ANSWERS.items() if answer in answers), None)


def training_words() -> dict[str, str]:
    """The one lexicon that recurs early in the training of tiny-smolvlm: answer -> nonce word."""
    return dict(zip(_ALL, NONCE_WORDS, strict=False))


def draw_words(rng: np.random.Generator) -> dict[str, str]:
    """A lexicon drawn uniformly: distinct nonce words for all answers."""
    return {answer: NONCE_WORDS[i] for answer, i in zip(_ALL, rng.permutation(len(NONCE_WORDS)), strict=False)}


def dataset_words(seed: int) -> dict[str, str]:
    """The lexicon of a data set: drawn by seed, and no answer keeps the word that it has in `training_words`."""
    rng, known = np.random.default_rng([seed, 0xEA57]), training_words()
    while True:
        words = draw_words(rng)
        if all(words[answer] != known[answer] for answer in words):
            return words
