"""ROUGE-L: the longest common subsequence of an answer and its references.

Lin: ROUGE, a package for automatic evaluation of summaries (2004), as the COCO caption evaluation computes it: the
highest precision and the highest recall over the references, each for itself, in an F measure with beta 1.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from icltool.components.metrics.captions import tokenized
from icltool.components.metrics.ptb import PTBTokenizer, shared_tokenizer
from icltool.components.tasks import caption_tasks
from icltool.contracts import Float64Array, Options

_BETA = 1.2


class RougeL:
    """ROUGE-L, tokenized as the COCO evaluation does, between 0 and 1; the corpus figure is the mean."""

    options_model = Options
    name = "rouge-l"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = caption_tasks()

    def __init__(self, tokenizer: PTBTokenizer | None = None) -> None:
        self._tokenizer = tokenizer or shared_tokenizer()

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: ROUGE-L has no corpus statistics."""

    def check(self) -> None:
        """Raises ConfigError where Java or pycocoevalcap is missing: the tokenizer needs them."""
        self._tokenizer.check()

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n]; 0 for an answer without references."""
        answers, known = tokenized(self._tokenizer, predictions, references)
        return np.array([_f_measure(a, texts) for a, texts in zip(answers, known, strict=True)], dtype=np.float64)


def _f_measure(answer: str, references: Sequence[str]) -> float:
    # Split at each space, as the evaluation does: an empty text is one empty word.
    words = answer.split(" ")
    precision = recall = 0.0
    for reference in references:
        theirs = reference.split(" ")
        common = common_length(words, theirs)
        precision, recall = max(precision, common / len(words)), max(recall, common / len(theirs))
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def common_length(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of the table at a time as bits of one number.

    Hyyro: Bit-parallel LCS-length computation revisited (2004). A zero bit stands for a step of the row.
    """
    places: dict[str, int] = {}
    for position, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << position
    full = (1 << len(one)) - 1
    row = full
    for word in other:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(one) - row.bit_count()
