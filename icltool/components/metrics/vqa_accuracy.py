"""VQA accuracy as the official evaluation computes it.

An answer is right to min(#annotators who gave it / 3, 1), averaged over leaving out each annotator in turn. Answers
are first brought to a common form (`normalise`), except where all annotators wrote exactly the same: then only equal
strings count, case and punctuation included.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

import numpy as np

from icltool.components.metrics.vqa_tables import ARTICLES, CONTRACTIONS, NUMBER_WORDS, PUNCTUATION
from icltool.contracts.arrays import Float64Array

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
#: The official evaluation hands a flag over in the place of a count, and so strips this many full stops at most.
_FULL_STOPS = 32


class VQAAccuracy:
    """Per-answer accuracy between 0 and 1 against the annotators' answers (ten in VQAv2 and OK-VQA)."""

    name = "vqa-accuracy"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = ("vqa",)
    #: See Metric: of those that agree with an answer one is left out, so three annotators can never make it 1.
    least_references = 4
    instead = "exact-match"

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: the accuracy has no corpus statistics."""

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n] in [0, 1]. An empty answer is compared like any other, so it scores 0 unless annotators left
        theirs empty; an answer without references scores 0. With fewer than four annotators 1 cannot be reached."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
        pairs = zip(predictions, references, strict=True)
        return np.array([accuracy(answer, annotators) for answer, annotators in pairs], np.float64)


def accuracy(answer: str, annotators: Sequence[str]) -> float:
    """The accuracy of one answer, in [0, 1]."""
    if not annotators:
        return 0.0
    answer, annotated = _plain(answer), [_plain(a) for a in annotators]
    if len(set(annotated)) > 1:
        answer, annotated = normalise(answer), [normalise(a) for a in annotated]
    same = annotated.count(answer)
    # Leaving out one who agrees leaves same - 1 who do, leaving out another leaves same.
    agreeing, others = min(1.0, (same - 1) / 3), min(1.0, same / 3)
    return (same * agreeing + (len(annotated) - same) * others) / len(annotated) if same else 0.0


@functools.lru_cache(maxsize=100_000)
def normalise(text: str) -> str:
    """Punctuation, then lower case, number words, articles and contractions, in the official order."""
    words = (NUMBER_WORDS.get(word, word) for word in _strip_punctuation(text).lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _plain(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _strip_punctuation(text: str) -> str:
    """A mark at the edge of a word is dropped, one inside becomes a space. A comma inside a number anywhere in the text
    makes all marks be dropped. Both are judged by the text as it was before any mark was replaced."""
    drop_all = _COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in PUNCTUATION:
        if mark in text:
            at_edge = f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if drop_all or at_edge else " ")
    return _FULL_STOP.sub("", result, count=_FULL_STOPS)
