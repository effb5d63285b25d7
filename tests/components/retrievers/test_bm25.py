"""BM25 against the formula, word by word and row by row."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.retrievers.bm25 import BM25Options, BM25Retriever, words
from icltool.contracts import IndexSet, QuerySet
from icltool.errors import ConfigError
from icltool.plugin.manager import component, load_registry
from icltool.testing import check_retriever, make_index, make_queries


def test_conforms() -> None:
    check_retriever(lambda: load_registry().create("retrievers", "bm25"))


def arrays(texts: list[str], queries: list[str]) -> tuple[IndexSet, QuerySet]:
    n, q = len(texts), len(queries)
    index = IndexSet(np.arange(n), np.arange(n), np.full(n, -1), texts=tuple(texts))
    return index, QuerySet(np.arange(n, n + q), np.arange(n, n + q), np.full(q, -1), texts=tuple(queries))


def by_the_formula(texts: list[str], query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    bags = [words(text) for text in texts]
    mean = sum(map(len, bags)) / len(bags)
    scores = []
    for bag in bags:
        score = 0.0
        for word in words(query):
            having, times = sum(word in other for other in bags), bag.count(word)
            if times:
                idf = math.log(1 + (len(bags) - having + 0.5) / (having + 0.5))
                score += idf * times * (k1 + 1) / (times + k1 * (1 - b + b * len(bag) / mean))
        scores.append(score)
    return scores


_TEXT = st.lists(st.sampled_from(["what", "is", "the", "color", "of", "dog", "cat", "on", "?", "A"]), max_size=8).map(
    " ".join
)


@settings(max_examples=80, deadline=None)
@given(st.lists(_TEXT, min_size=1, max_size=25), st.lists(_TEXT, min_size=1, max_size=4), st.data())
def test_rows_are_those_of_the_formula(texts: list[str], questions: list[str], data: st.DataObject) -> None:
    """Repeated texts, words that most rows have, words that none has, empty texts."""
    index, queries = arrays(texts, questions)
    shots = data.draw(st.integers(1, len(texts)))
    rows = BM25Retriever(BM25Options()).retrieve(index, queries, shots, 0)
    for position, query in enumerate(questions):
        scores = [round(score, 9) for score in by_the_formula(texts, query)]
        expected = sorted(range(len(texts)), key=lambda row: (-scores[row], row))[:shots]
        assert [scores[row] for row in rows[position]] == [scores[row] for row in expected]
        assert len(set(rows[position].tolist())) == shots


def test_equal_scores_are_taken_by_row() -> None:
    texts = ["a cat", "a red dog", "the red dog", "a red dog", "dog", "A red dog?"]
    index, queries = arrays(texts, ["a red dog"])
    assert BM25Retriever(BM25Options()).retrieve(index, queries, 4, 0)[0].tolist() == [1, 3, 5, 2]
    index, queries = arrays(["x y", "y x", "z", "x y"], ["nothing shared"])
    assert BM25Retriever(BM25Options()).retrieve(index, queries, 4, 0)[0].tolist() == [0, 1, 2, 3]


def test_rows_are_those_of_the_formula_among_many() -> None:
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(60)]
    weights = [1 / (i + 1) for i in range(60)]
    texts = [" ".join(rng.choices(vocabulary, weights, k=rng.randint(1, 9))) for _ in range(500)]
    questions = [" ".join(rng.choices(vocabulary, weights, k=rng.randint(1, 6))) for _ in range(30)]
    index, queries = arrays(texts, questions)
    rows = BM25Retriever(BM25Options(k1=0.9, b=0.4)).retrieve(index, queries, 8, 0)
    for position in range(0, 30, 10):
        scores = np.round(by_the_formula(texts, questions[position], 0.9, 0.4), 9)
        np.testing.assert_array_equal(scores[rows[position]], np.sort(scores)[::-1][:8])


def test_leaking_rows_make_way_for_the_next_best() -> None:
    index = make_index(240)
    queries = make_queries(index, range(0, 240, 5))
    rows = BM25Retriever(BM25Options()).retrieve(index, queries, 4, 0)
    for position in range(0, len(queries), 6):
        scores = np.round(by_the_formula(list(index.texts), queries.texts[position]), 9)
        scores[index.leaking_rows(queries, position)] = -1.0
        np.testing.assert_array_equal(scores[rows[position]], np.sort(scores)[::-1][:4])


def test_another_index_set_is_not_answered_from_the_last() -> None:
    retriever = BM25Retriever(BM25Options())
    for texts in (["a dog", "a cat"], ["a cat", "a dog"]):
        index, queries = arrays(texts, ["cat"])
        assert texts[retriever.retrieve(index, queries, 1, 0)[0, 0]] == "a cat"


@pytest.mark.parametrize("option", [{"k1": -1}, {"b": 1.5}, {"b": "x"}])
def test_wrong_options_are_named(option: dict[str, float]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=f"'bm25': {name} must be "):
        component("retrievers", "bm25", **option)
