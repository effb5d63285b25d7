"""The share of answers that equal a reference in the common form of the VQA evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from icltool.components.metrics.accuracy import exact_matches
from icltool.components.metrics.vqa_accuracy import normalise
from icltool.contracts.arrays import Float64Array


class ExactMatch:
    """1 for an answer that equals one of its references once both are brought to the common form of the official VQA
    evaluation (`normalise`: case, punctuation, articles, number words, contractions), else 0. For questions with fewer
    answers than the four from which on VQA accuracy can reach 1."""

    name = "exact-match"
    scale = 100.0

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: it has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n], each 0 or 1; 0 for an answer without references."""
        return exact_matches(predictions, references, normalise)
