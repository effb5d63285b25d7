"""BLEU: how many n-grams of an answer its references have.

Papineni et al.: BLEU, a method for automatic evaluation of machine translation (2002), as the COCO caption evaluation
computes it: the brevity penalty takes the reference length that is closest to the answer's (the shorter of two), and
small numbers keep empty counts from dividing by zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import Field

from icltool.components.metrics.captions import tokenized
from icltool.components.metrics.ngrams import ORDERS, Level, Sentences, levels, weighted
from icltool.components.metrics.ptb import PTBTokenizer, shared_tokenizer
from icltool.components.tasks import caption_tasks
from icltool.contracts import Float64Array, Judgement, Options

_SMALL, _TINY = 1e-9, 1e-15
#: Columns of the statistics of an answer: its length, the closest reference's, n-grams of each order, shared ones.
_LENGTH, _REFERENCE, _GRAMS, _SHARED = 0, 1, slice(2, 2 + ORDERS), slice(2 + ORDERS, 2 + 2 * ORDERS)


class BleuOptions(Options):
    """Which BLEU."""

    order: int = Field(ORDERS, ge=1, le=ORDERS, description="length of the longest n-grams that are counted")


class Bleu:
    """BLEU with n-grams of one to `order` (1 to 4) words, tokenized as the COCO evaluation does, between 0 and 1.

    An answer's score is BLEU of that answer alone; the corpus figure counts n-grams and lengths of all answers together
    and is no mean of these.
    """

    options_model = BleuOptions
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = caption_tasks()

    def __init__(self, options: BleuOptions, tokenizer: PTBTokenizer | None = None) -> None:
        self.order = options.order
        self.name = f"bleu-{options.order}"
        self._tokenizer = tokenizer or shared_tokenizer()

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Nothing: BLEU has no corpus statistics."""

    def check(self) -> None:
        """Raises ConfigError where Java or pycocoevalcap is missing: the tokenizer needs them."""
        self._tokenizer.check()

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n]; 0 for an answer without references."""
        scores = self._bleu(self._statistics(predictions, references))
        scores[[not texts for texts in references]] = 0.0
        return scores

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        """Corpus BLEU under each weighting, float64 [R]; see CorpusMetric. The n-grams of an answer without references
        count, and none of them is shared."""
        statistics = self._statistics([j.answer for j in judgements], [j.references for j in judgements])
        return self._bleu(weights @ statistics)

    def _bleu(self, statistics: Float64Array) -> Float64Array:
        """float64 [n] from statistics [n, 10]."""
        precisions = (statistics[:, _SHARED] + _TINY) / (statistics[:, _GRAMS] + _SMALL)
        product = np.cumprod(precisions, axis=1)[:, self.order - 1]
        ratio = (statistics[:, _LENGTH] + _TINY) / (statistics[:, _REFERENCE] + _SMALL)
        penalty = np.exp(np.minimum(1.0 - 1.0 / ratio, 0.0))
        return np.asarray(product ** (1.0 / self.order) * penalty, dtype=np.float64)

    def _statistics(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n, 10] of whole numbers."""
        answers, known = tokenized(self._tokenizer, predictions, references)
        n = len(answers)
        owner = np.concatenate([np.arange(n), np.repeat(np.arange(n), [len(texts) for texts in known])]).astype(
            np.int64
        )
        vocabulary: dict[str, int] = {}
        sentences = Sentences.build([*answers, *(text for texts in known for text in texts)], vocabulary)
        statistics = np.zeros((n, 2 + 2 * ORDERS))
        lengths = sentences.lengths[:n]
        statistics[:, _LENGTH] = lengths
        statistics[:, _GRAMS] = np.maximum(lengths[:, None] - np.arange(ORDERS), 0)
        closest = np.full((n, 2), np.inf)
        for q, length in zip(owner[n:].tolist(), sentences.lengths[n:].tolist(), strict=True):
            closest[q] = min((abs(length - lengths[q]), length), tuple(closest[q]))
        statistics[:, _REFERENCE] = np.where(np.isfinite(closest[:, 1]), closest[:, 1], 0.0)
        shared = [_shared(level, owner, n) for level in levels(sentences, len(vocabulary))]
        statistics[:, _SHARED] = np.stack(shared, axis=1)
        return statistics


def _shared(level: Level, owner: np.ndarray, n: int) -> Float64Array:
    """float64 [n]: an answer's n-grams (sentences 0 to n - 1) that its references have, each at most as often as the
    reference that has it most."""
    grams = max(len(level.keys), 1)
    sentence, ids, counts = weighted(level, np.ones(len(level.keys)))
    split = int(np.searchsorted(sentence, n))
    if split in (0, len(sentence)):
        return np.zeros(n)
    keys, codes = np.unique(owner[sentence[split:]] * grams + ids[split:], return_inverse=True)
    most = np.zeros(len(keys))
    np.maximum.at(most, codes.reshape(-1), counts[split:])
    searched = sentence[:split] * grams + ids[:split]
    place = np.minimum(np.searchsorted(keys, searched), len(keys) - 1)
    common = np.where(keys[place] == searched, np.minimum(counts[:split], most[place]), 0.0)
    return np.asarray(np.bincount(sentence[:split], weights=common, minlength=n), dtype=np.float64)
