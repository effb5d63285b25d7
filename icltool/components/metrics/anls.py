"""Average normalised Levenshtein similarity (ANLS): answers that were read off an image, with some of their letters wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from icltool.contracts.arrays import Float64Array

#: An answer that differs from a reference in this share of its characters, or in more, scores 0.
THRESHOLD = 0.5


class Anls:
    """1 - d / l for the most similar reference, where d is the Levenshtein distance and l the length of the longer text; 0 if
    d / l is 0.5 or more (Biten et al. 2019, Scene Text Visual Question Answering, section 5.1).

    Case and repeated blanks do not count.
    """

    name = "anls"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = ("vqa", "open-answer")

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: similarities have no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n] in [0, 1]; 0 for an answer without references."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
        pairs = zip(predictions, references, strict=True)
        best = [max((similarity(answer, text) for text in set(texts)), default=0.0) for answer, texts in pairs]
        return np.array(best, dtype=np.float64)


def similarity(answer: str, reference: str) -> float:
    """The similarity of an answer to one reference, 0 from the threshold on. Two empty texts are equal."""
    answer, reference = (" ".join(text.lower().split()) for text in (answer, reference))
    longer = max(len(answer), len(reference))
    share = distance(answer, reference) / longer if longer else 0.0
    return 1 - share if share < THRESHOLD else 0.0


def distance(first: str, second: str) -> int:
    """The Levenshtein distance: the least number of characters to insert, delete or replace."""
    previous = list(range(len(second) + 1))
    for row, one in enumerate(first, 1):
        current = [row]
        for column, other in enumerate(second, 1):
            replaced = previous[column - 1] + (one != other)
            current.append(min(replaced, previous[column] + 1, current[-1] + 1))
        previous = current
    return previous[-1]
