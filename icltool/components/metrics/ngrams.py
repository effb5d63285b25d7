"""Exact ids for the n-grams of many sentences at once.

An n-gram's id is derived from the id of its first n-1 words and its last word, level by level, so that ids are exact
(nothing is hashed) and all work is done on whole arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from icltool.contracts.arrays import Float64Array, IntArray

ORDERS = 4


@dataclass(frozen=True)
class Sentences:
    """S sentences of W words together: `words` int64 [W] ids below `vocabulary`, `sentence` int64 [W] which sentence
    each word stands in, `left` int64 [W] how many words the sentence has from there on, `lengths` int64 [S]."""

    words: IntArray
    sentence: IntArray
    left: IntArray
    lengths: IntArray

    @classmethod
    def build(cls, sentences: Sequence[str], vocabulary: dict[str, int]) -> Sentences:
        """Splits at white space; words new to `vocabulary` are added to it."""
        ids: list[int] = []
        lengths = np.empty(len(sentences), np.int64)
        for position, sentence in enumerate(sentences):
            words = sentence.split()
            lengths[position] = len(words)
            ids += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
        return cls.of(np.asarray(ids, np.int64), lengths)

    @classmethod
    def of(cls, words: IntArray, lengths: IntArray) -> Sentences:
        ends = np.cumsum(lengths)
        sentence = np.repeat(np.arange(len(lengths)), lengths)
        left = np.repeat(ends, lengths) - np.arange(len(words))
        return cls(words, sentence, left, lengths)


@dataclass(frozen=True)
class Level:
    """The n-grams of one order: `keys` int64 [G] ascending, one per distinct n-gram; occurrence o is n-gram
    `ids[o]` of sentence `sentence[o]`. `prefix` and `last` int64 [G]: the id of the first n-1 words at the level below,
    and the last word (0 and the word itself at the first level)."""

    keys: IntArray
    ids: IntArray
    sentence: IntArray
    prefix: IntArray
    last: IntArray


def levels(sentences: Sentences, vocabulary_size: int) -> list[Level]:
    """The n-grams of orders 1 to ORDERS."""
    result = []
    positions = np.arange(len(sentences.words))
    prefix_at = np.zeros(len(sentences.words), np.int64)
    for order in range(1, ORDERS + 1):
        starts = positions[sentences.left >= order]
        prefixes, last = prefix_at[starts], sentences.words[starts + order - 1]
        keys, ids = np.unique(prefixes * vocabulary_size + last, return_inverse=True)
        ids = ids.reshape(-1).astype(np.int64)
        prefix, word = np.divmod(keys, max(vocabulary_size, 1))
        result.append(Level(keys, ids, sentences.sentence[starts], prefix, word))
        prefix_at = np.zeros_like(prefix_at)
        prefix_at[starts] = ids
    return result


def document_frequencies(level: Level, document: IntArray, times: IntArray | None = None) -> IntArray:
    """int64 [G]: in how many documents each n-gram occurs; `document` int64 [S] is each sentence's document, and
    document d stands for `times[d]` equal ones (default 1)."""
    if not len(level.ids):
        return np.zeros(len(level.keys), np.int64)
    documents, grams = np.divmod(np.unique(document[level.sentence] * len(level.keys) + level.ids), len(level.keys))
    weights = None if times is None else times[documents]
    return np.bincount(grams, weights=weights, minlength=len(level.keys)).astype(np.int64)


@dataclass(frozen=True)
class ReferenceStatistics:
    """How often each n-gram occurs in a reference corpus of `documents` documents."""

    documents: int
    vocabulary: dict[str, int]
    keys: tuple[IntArray, ...]
    frequencies: tuple[IntArray, ...]

    @classmethod
    def count(
        cls, sentences: Sentences, document: IntArray, documents: int, vocabulary: dict[str, int]
    ) -> ReferenceStatistics:
        sentence_levels = levels(sentences, len(vocabulary))
        frequencies = tuple(document_frequencies(level, document) for level in sentence_levels)
        return cls(documents, vocabulary, tuple(level.keys for level in sentence_levels), frequencies)

    def of(self, sentence_levels: list[Level], vocabulary: dict[str, int]) -> list[IntArray]:
        """The frequencies of another text's n-grams, int64 [G] per level; 0 where the corpus has none."""
        words = np.fromiter((self.vocabulary.get(word, -1) for word in vocabulary), np.int64, len(vocabulary))
        known = np.zeros(1, np.int64)  # the id here of the prefix there; the empty prefix is 0
        answer = []
        for level, keys, frequencies in zip(sentence_levels, self.keys, self.frequencies, strict=True):
            prefix, last = known[level.prefix], words[level.last]
            known = np.where((prefix < 0) | (last < 0), -1, _find(keys, prefix * len(self.vocabulary) + last))
            padded = np.append(frequencies, 0)
            answer.append(padded[known])
        return answer


def _find(keys: IntArray, values: IntArray) -> IntArray:
    """The position of each wanted value in ascending `keys`, -1 where it is not there."""
    if not len(keys):
        return np.full(len(values), -1, np.int64)
    place = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    return np.where(keys[place] == values, place, -1).astype(np.int64)


class Weighted(NamedTuple):
    """One entry per (sentence, n-gram) that occurs, ascending by both: int64 [N], int64 [N], float64 [N]."""

    sentence: IntArray
    ids: IntArray
    weights: Float64Array


def weighted(level: Level, idf: Float64Array) -> Weighted:
    """Counts of n-grams times `idf` [E]."""
    grams = max(len(level.keys), 1)
    pairs, counts = np.unique(level.sentence * grams + level.ids, return_counts=True)
    sentence, ids = np.divmod(pairs, grams)
    return Weighted(sentence, ids, counts * idf[ids])
