"""The share of a label's words that an answer contains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from icltool.contracts.arrays import Float64Array

_WORD = re.compile(r"\w+(?:['’]\w+)*")


class WordAccuracy:
    """How many of the content words an answer contains, whatever their order.

    The content words of an example are the words that occur in every one of its references: with several paraphrases
    those that carry what all of them say, with one reference all its words. Words are compared in lower case and
    without punctuation; each counts once. Where the references have no word in common, the score is 0.
    """

    name = "word-accuracy"
    scale = 100.0

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: the accuracy has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n] in [0, 1]; 0 for an empty answer or one without references."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
        scores = np.zeros(len(predictions))
        for position, (prediction, texts) in enumerate(zip(predictions, references, strict=True)):
            content = content_words(texts)
            if content:
                scores[position] = len(content & words(prediction)) / len(content)
        return scores


def content_words(references: Sequence[str]) -> frozenset[str]:
    """The words that occur in every reference; none without references."""
    sets = [words(text) for text in references]
    return frozenset.intersection(*sets) if sets else frozenset()


def words(text: str) -> frozenset[str]:
    """The distinct words of a text in lower case, without punctuation (an apostrophe inside a word stays)."""
    return frozenset(_WORD.findall(text.lower()))
