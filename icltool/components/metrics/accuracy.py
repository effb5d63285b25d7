"""The share of answers that equal a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from icltool.contracts.arrays import Float64Array


def plain(text: str) -> str:
    """The form in which labels are compared: no blanks around it, case folded."""
    return text.strip().casefold()


class Accuracy:
    """1 for an answer that equals one of its references, but for case and blanks around it; else 0."""

    name = "accuracy"
    scale = 100.0

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: the accuracy has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n], each 0 or 1; 0 for an answer without references."""
        return exact_matches(predictions, references)


def exact_matches(
    predictions: Sequence[str], references: Sequence[Sequence[str]], form: Callable[[str], str] = plain
) -> Float64Array:
    """float64 [n]: whether each answer equals one of its references once both are brought to this form."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
    pairs = zip(predictions, references, strict=True)
    return np.array([form(answer) in map(form, texts) for answer, texts in pairs], dtype=np.float64)
