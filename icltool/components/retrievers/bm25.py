"""Demonstrations whose words match the query's."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from icltool.components.retrievers.options import SecondOptions
from icltool.components.retrievers.rows import excluded_rows, given_rows
from icltool.contracts import Float64Array, IndexSet, IntArray, QuerySet

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation (an apostrophe inside a word stays)."""
    return _WORD.findall(text.lower())


class BM25Options(SecondOptions):
    """The constants of the BM25 formula."""

    k1: float = Field(1.5, ge=0, le=1e3, description="BM25's k1: how much repeated occurrences of a word count")
    b: float = Field(
        0.75, ge=0, le=1, description="BM25's b: how much long rows are penalised, from 0 (not at all) to 1"
    )


class BM25Retriever:
    """The rows with the highest Okapi BM25 score of their retrieval text for the query's text (Robertson et al., Okapi
    at TREC-3, 1994; the formula as in Robertson and Zaragoza, The probabilistic relevance framework, 2009):

    sum over the query's words of log(1 + (N - n + 0.5) / (n + 0.5)) f (k1 + 1) / (f + k1 (1 - b + b length / mean)),

    f times in the row and in n of N rows. The 1 in the logarithm keeps words of most rows from counting against a row. A
    word counts as often as the query has it. Rows are ranked, equal scores by row; rows that share no word come last.

    After another method, it chooses among that method's rows, with the weights of the whole index set. A caption query's
    text is one of its own references, so for captions this is an upper bound and not a fair method.
    """

    options_model = BM25Options
    query = "text"
    needs: frozenset[str] = frozenset({"texts", "among"})
    ranked = True
    nested = True

    def __init__(self, options: BM25Options) -> None:
        self.options = options
        self._texts: tuple[str, ...] | None = None
        self._inverted: InvertedIndex | None = None

    def pool_size(self, shots: int) -> int:
        """See HasPoolSize."""
        return self.options.pool_size(shots)

    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, among: IntArray | None = None
    ) -> IntArray:
        """Rows of `index` int64 [Q, shots]; see `icltool.contracts.Retriever`. Nothing is drawn: `seed` has no effect.

        Raises DataError when a query has fewer rows left.
        """
        if among is None:
            self.options.check_alone()
        chosen = np.empty((len(queries), shots), dtype=np.int64)
        if not shots or not len(queries):
            return chosen
        if self._inverted is None or self._texts != index.texts:
            self._texts, self._inverted = index.texts, InvertedIndex(index.texts, self.options.k1, self.options.b)
        for position in range(len(queries)):
            if among is not None:
                rows = given_rows(among, queries, position, shots)
                chosen[position] = self._inverted.ordered(queries.texts[position], rows)[:shots]
                continue
            leaking = excluded_rows(index, queries, position, shots, "query")
            chosen[position] = self._inverted.best(queries.texts[position], shots, leaking)
        return chosen


class InvertedIndex:
    """BM25 weights of each word's rows. Rows whose texts have the same words, as many questions do, are kept as one
    *document*; N, n and the mean length still count rows."""

    def __init__(self, texts: Sequence[str], k1: float, b: float) -> None:
        known: dict[str, int] = {}
        documents: dict[tuple[int, ...], int] = {}
        codes = np.empty(len(texts), dtype=np.int64)
        for row, text in enumerate(texts):
            bag = tuple(sorted(known.setdefault(word, len(known)) for word in words(text)))
            codes[row] = documents.setdefault(bag, len(documents))
        self.words, self._codes = known, codes
        # All rows of document d, ascending: _rows[_starts[d] : _starts[d + 1]].
        self._rows = np.argsort(codes, kind="stable").astype(np.int64)
        self._starts = np.searchsorted(codes[self._rows], np.arange(len(documents) + 1))
        lengths = np.array([len(bag) for bag in documents], dtype=np.int64)
        flat = np.fromiter((w for bag in documents for w in bag), np.int64, int(lengths.sum()))
        # One entry per (word, document), ascending by both.
        keys, counts = np.unique(
            flat * len(documents) + np.repeat(np.arange(len(documents)), lengths), return_counts=True
        )
        word, self._documents = np.divmod(keys, max(len(documents), 1))
        copies = np.diff(self._starts)
        rows_with = np.bincount(word, weights=copies[self._documents], minlength=len(known))
        idf = np.log(1.0 + (len(texts) - rows_with + 0.5) / (rows_with + 0.5))
        mean = float((lengths * copies).sum()) / max(len(texts), 1)
        norm = k1 * (1 - b + b * lengths / max(mean, 1.0 / max(len(texts), 1)))
        self._weights: Float64Array = idf[word] * counts * (k1 + 1) / (counts + norm[self._documents])
        self._bounds = np.searchsorted(word, np.arange(len(known) + 1))
        self._scores = np.zeros(len(documents))

    def best(self, text: str, count: int, leaking: IntArray) -> IntArray:
        """The `count` best rows that are not among `leaking`, int64 [count]."""
        scores = self._score(text)
        groups = _highest(scores, count + len(leaking))
        lengths = self._starts[groups + 1] - self._starts[groups]
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        rows = self._rows[np.repeat(self._starts[groups], lengths) + within]
        values = np.repeat(scores[groups], lengths)
        allowed = ~np.isin(rows, leaking)
        rows, values = rows[allowed], values[allowed]
        answer: IntArray = rows[np.lexsort((rows, -values))[:count]]
        return answer

    def ordered(self, text: str, rows: IntArray) -> IntArray:
        """The rows from the best on, int64 [n]."""
        answer: IntArray = rows[np.lexsort((rows, -self._score(text)[self._codes[rows]]))]
        return answer

    def _score(self, text: str) -> Float64Array:
        """The score of each document, float64; words are added in the order of the query."""
        scores = self._scores
        scores.fill(0.0)
        for word in words(text):
            code = self.words.get(word)
            if code is not None:
                part = slice(self._bounds[code], self._bounds[code + 1])
                scores[self._documents[part]] += self._weights[part]
        return scores


def _highest(scores: Float64Array, count: int) -> IntArray:
    """Positions ascending of the `count` highest scores and of all that equal the last of them."""
    if count >= len(scores):
        return np.arange(len(scores))
    highest = float(scores.max())
    for share in (0.75, 0.5, 0.25):  # most scores are low; selecting among the few high ones is quicker
        candidates = np.flatnonzero(scores >= share * highest)
        if len(candidates) >= count:
            break
    else:
        candidates = np.arange(len(scores))
    least = np.partition(scores[candidates], len(candidates) - count)[len(candidates) - count]
    highest_positions: IntArray = candidates[scores[candidates] >= least]
    return highest_positions
