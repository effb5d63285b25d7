"""CIDEr-D: how much a caption agrees with what several people wrote, rare words counting for more.

Vedantam, Zitnick, Parikh: CIDEr, consensus-based image description evaluation (2015), in the form with clipped counts
and a penalty on length that the COCO caption evaluation computes. All captions are scored together on arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from icltool.contracts.arrays import Float64Array, IntArray
from icltool.errors import DataError
from icltool.metrics.ngrams import (
    ORDERS,
    Level,
    ReferenceStatistics,
    Sentences,
    document_frequencies,
    levels,
    weighted,
)
from icltool.metrics.ptb import PTBTokenizer, shared_tokenizer

_SIGMA = 6.0
_FIT_BATCH = 4_096


class Cider:
    """CIDEr-D with n-grams of one to four words, tokenized as the COCO evaluation does. A perfect score is 10, printed
    as 1000; captions by people are around 1, printed as 100."""

    name = "cider"
    scale = 100.0
    #: What it is made for; on other tasks a remark says so.
    tasks = ("caption",)

    def __init__(self, tokenizer: PTBTokenizer | None = None) -> None:
        self._tokenizer = tokenizer or shared_tokenizer()
        self._statistics: ReferenceStatistics | None = None

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Takes document frequencies and the number of documents from `corpus`: one document is all references of one
        example. It is read once, in batches. Raises DataError when it is empty."""
        vocabulary: dict[str, int] = {}
        parts: list[Sentences] = []
        sizes: list[int] = []
        documents = iter(corpus)
        while batch := list(islice(documents, _FIT_BATCH)):
            sizes += [len(references) for references in batch]
            texts = [text for references in batch for text in references]
            parts.append(Sentences.build(self._tokenizer.tokenize(texts), vocabulary))
        if not sum(sizes):
            raise DataError("CIDEr: the reference corpus is empty", "run `icltool prepare` again for this dataset")
        whole = Sentences.of(np.concatenate([p.words for p in parts]), np.concatenate([p.lengths for p in parts]))
        document = np.repeat(np.arange(len(sizes)), sizes)
        self._statistics = ReferenceStatistics.count(whole, document, len(sizes), vocabulary)

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n], between 0 and 10. Without `fit`, document frequencies are those of `references`."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
        n = len(predictions)
        if not n:
            return np.zeros(0)
        counts = np.array([len(answers) for answers in references], np.int64)
        texts = [*predictions, *(text for answers in references for text in answers)]
        vocabulary: dict[str, int] = {}
        sentences = Sentences.build(self._tokenizer.tokenize(texts), vocabulary)
        document = np.concatenate([np.arange(n), np.repeat(np.arange(n), counts)])
        found = levels(sentences, len(vocabulary))
        total = np.zeros(len(texts) - n)
        for level, idf in zip(found, self._idf(found, vocabulary, document, n), strict=True):
            total += _similarity(level, idf, document, n)
        # The evaluation takes the number of word pairs for the length.
        pairs = np.maximum(sentences.lengths - 1, 0)
        difference = (pairs[document[n:]] - pairs[n:]).astype(np.float64)
        total *= np.exp(-(difference**2) / (2 * _SIGMA**2))
        summed = np.bincount(document[n:], weights=total, minlength=n)
        scores: Float64Array = 10.0 * summed / ORDERS / np.maximum(counts, 1)
        return scores

    def _idf(self, found: list[Level], vocabulary: dict[str, int], document: IntArray, n: int) -> list[Float64Array]:
        """log(documents / documents with the n-gram), float64 [G] per level; an unseen n-gram counts as seen once."""
        if self._statistics is not None:
            documents = self._statistics.documents
            frequencies = self._statistics.of(found, vocabulary)
        else:
            documents = n
            frequencies = [document_frequencies(_references_only(level, n), document) for level in found]
        return [np.log(float(documents)) - np.log(np.maximum(1.0, frequency)) for frequency in frequencies]


def _references_only(level: Level, n: int) -> Level:
    """Without the occurrences in the first n sentences, the predictions."""
    kept = level.sentence >= n
    return Level(level.keys, level.ids[kept], level.sentence[kept], level.prefix, level.last)


def _similarity(level: Level, idf: Float64Array, document: IntArray, n: int) -> Float64Array:
    """float64 [R]: the clipped cosine of each reference with its document's prediction (sentences 0 to n-1)."""
    sentence, ids, weights = weighted(level, idf)
    if not len(ids):
        return np.zeros(len(document) - n)
    norms = np.sqrt(np.bincount(sentence, weights=weights**2, minlength=len(document)))
    split = np.searchsorted(sentence, n)
    grams = len(level.keys)
    # Entries ascend by (sentence, n-gram), and prediction i is sentence i, so its entries are found by bisection.
    predicted = sentence[:split] * grams + ids[:split]
    owner = document[sentence[split:]]
    wanted = owner * grams + ids[split:]
    place = np.searchsorted(predicted, wanted)
    place[place == split] = 0
    shared = np.flatnonzero(predicted[place] == wanted) if split else np.zeros(0, np.int64)
    reference = weights[split:][shared]
    product = np.minimum(weights[:split][place[shared]], reference) * reference
    value = np.bincount(sentence[split:][shared] - n, weights=product, minlength=len(document) - n)
    scale = norms[document[n:]] * norms[n:]
    cosine: Float64Array = np.divide(value, scale, out=np.zeros(len(scale)), where=scale != 0)
    return cosine
