"""VQA accuracy as the official evaluation computes it, and as evaluations of other data sets do under the same name.

An answer is right to min(#annotators who gave it / 3, 1), averaged over leaving out each annotator in turn. Answers
are first brought to a common form (`normalise`). The official evaluation does so except where all annotators wrote exactly
the same: then only equal strings count, case and punctuation included.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from icltool.components.metrics.vqa_tables import ARTICLES, CONTRACTIONS, NUMBER_WORDS, PUNCTUATION, VIZWIZ_CONTRACTIONS
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
        return np.array([self.accuracy(answer, annotators) for answer, annotators in pairs], np.float64)

    def accuracy(self, answer: str, annotators: Sequence[str]) -> float:
        """The accuracy of one answer, in [0, 1]."""
        answer, annotated = plain(answer), [plain(a) for a in annotators]
        if len(set(annotated)) > 1:
            answer, annotated = normalise(answer), [normalise(a) for a in annotated]
        return agreement(answer, annotated)


class OpenFlamingoVQAAccuracy(VQAAccuracy):
    """VQA accuracy as OpenFlamingo's evaluation computes it for VQAv2, OK-VQA and TextVQA: answers are normalised even where
    all annotators wrote the same. (Its figures of VizWiz are on another scale.)"""

    name = "vqa-accuracy-openflamingo"

    def accuracy(self, answer: str, annotators: Sequence[str]) -> float:
        return agreement(normalise(plain(answer)), [normalise(plain(a)) for a in annotators])


class TextVQAAccuracy(VQAAccuracy):
    """VQA accuracy as evaluations of TextVQA compute it: commas and question marks are deleted before answers are normalised,
    and answers are always normalised."""

    name = "textvqa-accuracy"

    def accuracy(self, answer: str, annotators: Sequence[str]) -> float:
        return agreement(_textvqa_form(answer), [_textvqa_form(a) for a in annotators])


class VizWizAccuracy(VQAAccuracy):
    """VQA accuracy as the evaluator of the VizWiz challenge computes it: the answer is normalised, those of the annotators are
    compared as they were written. Its contractions have typographic apostrophes, so that "don't" equals no annotator's."""

    name = "vizwiz-accuracy"

    def accuracy(self, answer: str, annotators: Sequence[str]) -> float:
        return agreement(normalise(plain(answer), VIZWIZ_CONTRACTIONS), annotators)


def agreement(answer: str, annotated: Sequence[str]) -> float:
    """The accuracy of an answer, in [0, 1], where equal strings are equal answers; 0 without annotators."""
    same = annotated.count(answer)
    if not same:
        return 0.0
    # Leaving out one who agrees leaves same - 1 who do, leaving out another leaves same.
    agreeing, others = min(1.0, (same - 1) / 3), min(1.0, same / 3)
    return (same * agreeing + (len(annotated) - same) * others) / len(annotated)


def normalise(text: str, contractions: Mapping[str, str] = CONTRACTIONS) -> str:
    """Punctuation, then lower case, number words, articles and contractions, in the official order."""
    return " ".join(contractions.get(word, word) for word in _words(text))


@functools.lru_cache(maxsize=100_000)
def _words(text: str) -> tuple[str, ...]:
    words = (NUMBER_WORDS.get(word, word) for word in _strip_punctuation(text).lower().split())
    return tuple(word for word in words if word not in ARTICLES)


def plain(text: str) -> str:
    """The text without line breaks and tabs, and without blanks at its ends."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def _textvqa_form(text: str) -> str:
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalise(plain(text))


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
