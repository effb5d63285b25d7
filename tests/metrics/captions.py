"""Captions with everything that makes tokenization hard, drawn at random."""

from __future__ import annotations

import random

_TEXT = (
    "a man woman dog cat riding on the street bike surfboard red blue, two and 3 large with (near) of wave's field. "
    "\"sign\" it's U.S. don't St. 50% $5 1/2 10:30 e.g. cannot & # @home café well-known ... -- ; : !"
)
_WORDS = _TEXT.split()


def caption(rng: random.Random) -> str:
    """Zero to fourteen words, frequent ones first in the list; the first letter is a capital."""
    weights = [1 / (1 + position) for position in range(len(_WORDS))]
    words = rng.choices(_WORDS, weights=weights, k=rng.randint(0, 14))
    return "A " + " ".join(words) if words else ""


def corpus(seed: int, size: int) -> tuple[list[str], list[list[str]]]:
    """(predictions, references): one to six references each; a third of the predictions copies one of them."""
    rng = random.Random(seed)
    references = [[caption(rng) for _ in range(rng.randint(1, 6))] for _ in range(size)]
    return [rng.choice(texts) if rng.random() < 0.3 else caption(rng) for texts in references], references
