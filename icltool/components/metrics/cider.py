"""CIDEr-D: how much a caption agrees with what several people wrote, rare words counting for more.

Vedantam, Zitnick, Parikh: CIDEr, consensus-based image description evaluation (2015), in the form with clipped counts
and a penalty on length that the COCO caption evaluation computes. All captions are scored together on arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from icltool.components.metrics.ngrams import (
    ORDERS,
    Level,
    ReferenceStatistics,
    Sentences,
    document_frequencies,
    levels,
    weighted,
)
from icltool.components.metrics.ptb import PTBTokenizer, shared_tokenizer
from icltool.components.tasks import caption_tasks
from icltool.contracts import Float64Array, IntArray, Options
from icltool.errors import DataError

_SIGMA = 6.0
_FIT_BATCH = 4_096


class Cider:
    """CIDEr-D with n-grams of one to four words, tokenized as the COCO evaluation does. A perfect score is 10, printed
    as 1000; captions by people are around 1, printed as 100."""

    options_model = Options
    name = "cider"
    scale = 100.0
    #: The tasks that this metric is meant for; on others a remark says so.
    tasks = caption_tasks()

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

    def check(self) -> None:
        """Raises ConfigError where Java or pycocoevalcap is missing: the tokenizer needs them."""
        self._tokenizer.check()

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n], between 0 and 10. Without `fit`, document frequencies are those of `references`.

        Equal lists of references are counted once, and equal predictions for them too.
        """
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} lists of references")
        if not len(predictions):
            return np.zeros(0)
        lists: dict[tuple[str, ...], int] = {}
        listed = [lists.setdefault(tuple(answers), len(lists)) for answers in references]
        distinct: dict[tuple[str, int], int] = {}
        places = [distinct.setdefault(pair, len(distinct)) for pair in zip(predictions, listed, strict=True)]
        texts = [*(text for text, _ in distinct), *(text for answers in lists for text in answers)]
        vocabulary: dict[str, int] = {}
        sentences = Sentences.build(self._tokenizer.tokenize(texts), vocabulary)
        pairs = _Pairs(np.array([of for _, of in distinct]), np.array([len(answers) for answers in lists], np.int64))
        sentence_levels = levels(sentences, len(vocabulary))
        total = np.zeros(len(pairs.prediction))
        for level, idf in zip(
            sentence_levels, self._idf(sentence_levels, vocabulary, pairs, np.bincount(listed)), strict=True
        ):
            total += _similarity(level, idf, pairs)
        # The evaluation takes the number of word pairs for the length.
        lengths = np.maximum(sentences.lengths - 1, 0)
        difference = (lengths[pairs.prediction] - lengths[pairs.reference]).astype(np.float64)
        total *= np.exp(-(difference**2) / (2 * _SIGMA**2))
        summed = np.bincount(pairs.prediction, weights=total, minlength=len(distinct))
        scores: Float64Array = 10.0 * summed / ORDERS / np.maximum(pairs.counts[pairs.owner], 1)
        return scores[places]

    def _idf(
        self, sentence_levels: list[Level], vocabulary: dict[str, int], pairs: _Pairs, times: IntArray
    ) -> list[Float64Array]:
        """log(documents / documents with the n-gram), float64 [G] per level; an unseen n-gram counts as seen once.

        `times` int64 [D]: how often each list of references was given.
        """
        if self._statistics is not None:
            documents = self._statistics.documents
            frequencies = self._statistics.of(sentence_levels, vocabulary)
        else:
            documents = int(times.sum())
            only = [_references_only(level, len(pairs.owner)) for level in sentence_levels]
            frequencies = [document_frequencies(level, pairs.document, times) for level in only]
        return [np.log(float(documents)) - np.log(np.maximum(1.0, frequency)) for frequency in frequencies]


class CiderD(Cider):
    """The same figure under its exact name: what the COCO caption evaluation calls CIDEr is CIDEr-D."""

    name = "cider-d"


class _Pairs:
    """Each of m predictions beside each of its references: P pairs, by prediction, then by reference.

    Sentences 0 to m - 1 are the predictions; the references of the D documents follow, document by document.
    """

    def __init__(self, owner: IntArray, counts: IntArray) -> None:
        """`owner` int64 [m] is each prediction's document, `counts` int64 [D] how many references a document has."""
        m, many = len(owner), counts[owner]
        self.owner, self.counts = owner, counts
        #: int64 [m + R]: each sentence's document.
        self.document = np.concatenate([owner, np.repeat(np.arange(len(counts)), counts)])
        first = np.cumsum(many) - many
        #: int64 [m]: added to a reference's sentence gives its pair with the prediction.
        self.shift = first - (m + np.cumsum(counts) - counts)[owner]
        #: int64 [P]: the sentences of each pair.
        self.prediction = np.repeat(np.arange(m), many)
        self.reference = np.arange(len(self.prediction)) - self.shift[self.prediction]


def _references_only(level: Level, n: int) -> Level:
    """Without the occurrences in the first n sentences, the predictions."""
    long_enough = level.sentence >= n
    return Level(level.keys, level.ids[long_enough], level.sentence[long_enough], level.prefix, level.last)


def _similarity(level: Level, idf: Float64Array, pairs: _Pairs) -> Float64Array:
    """float64 [P]: the clipped cosine of each pair."""
    sentence, ids, weights = weighted(level, idf)
    if not len(ids):
        return np.zeros(len(pairs.prediction))
    norms = np.sqrt(np.bincount(sentence, weights=weights**2, minlength=len(pairs.document)))
    split = np.searchsorted(sentence, len(pairs.owner))
    keys = pairs.document[sentence] * len(level.keys) + ids
    # A prediction's n-gram meets the same n-gram in every reference of its document: a run of the sorted keys.
    order = np.argsort(keys[split:], kind="stable")
    known = keys[split:][order]
    low, high = np.searchsorted(known, keys[:split], "left"), np.searchsorted(known, keys[:split], "right")
    hits = high - low
    predicted = np.repeat(np.arange(split), hits)
    run = np.arange(len(predicted)) - np.repeat(np.cumsum(hits) - hits - low, hits)
    referred = split + order[run]
    pair = pairs.shift[sentence[predicted]] + sentence[referred]
    product = np.minimum(weights[predicted], weights[referred]) * weights[referred]
    value = np.bincount(pair, weights=product, minlength=len(pairs.prediction))
    scale = norms[pairs.prediction] * norms[pairs.reference]
    cosine: Float64Array = np.divide(value, scale, out=np.zeros(len(scale)), where=scale != 0)
    return cosine
