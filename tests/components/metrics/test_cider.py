"""CIDEr-D against pycocoevalcap's, example by example."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.metrics.cider import Cider
from icltool.contracts import Metric
from icltool.errors import DataError
from icltool.plugin.manager import component
from tests.components.metrics.captions import corpus
from tests.components.metrics.official import FixedStatistics


@pytest.mark.parametrize("size", [1, 2, 700])
def test_equals_pycocoevalcap(official_cider: Callable, size: int) -> None:
    predictions, references = corpus(size, size)
    ours = Cider().score(predictions, references)
    assert ours.dtype == np.float64
    assert ours.shape == (size,)
    np.testing.assert_allclose(ours, official_cider(predictions, references), rtol=0, atol=1e-9)


_SENTENCE = st.lists(st.sampled_from(["dog", "cat", "a", "red", "on", "x"]), max_size=9).map(" ".join)
# pycocoevalcap fails where no reference of a corpus has any word.
_REFERENCES = st.lists(_SENTENCE, min_size=1, max_size=4).filter(any)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(_SENTENCE, min_size=1, max_size=5),
    st.lists(_REFERENCES, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=12),
)
def test_equals_pycocoevalcap_on_small_corpora(
    answers: list[str], lists: list[list[str]], pairs: list[tuple[int, int]]
) -> None:
    """Repeated words, empty captions, captions shorter than an n-gram, n-grams in every document; several answers to one
    list of references, equal ones among them."""
    from pycocoevalcap.cider.cider import Cider as Official

    predictions = [answers[one % len(answers)] for one, _ in pairs]
    references = [lists[other % len(lists)] for _, other in pairs]
    # These words tokenize to themselves, so the twin needs no Java.
    twin = {i: [text] for i, text in enumerate(predictions)}
    _, expected = Official().compute_score(dict(enumerate(references)), twin)
    np.testing.assert_allclose(Cider().score(predictions, references), expected, rtol=0, atol=1e-9)


def test_fitted_on_the_same_references_is_the_same() -> None:
    predictions, references = corpus(5, 300)
    fitted = Cider()
    fitted.fit(iter(references))
    whole = fitted.score(predictions, references)
    np.testing.assert_allclose(whole, Cider().score(predictions, references), rtol=0, atol=1e-12)
    parts = np.concatenate([fitted.score(predictions[i : i + 7], references[i : i + 7]) for i in range(0, 300, 7)])
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


def test_fitted_statistics_are_those_of_the_other_corpus(official_tokens: Callable) -> None:
    """Against pycocoevalcap's scorer with document frequencies and size of the other corpus."""
    _, others = corpus(11, 400)
    predictions, references = corpus(12, 50)
    twin = FixedStatistics(official_tokens(others))
    answers = [answer for (answer,) in official_tokens([[p] for p in predictions])]
    expected = twin.score(answers, official_tokens(references))
    ours = Cider()
    ours.fit(others)
    np.testing.assert_allclose(ours.score(predictions, references), expected, rtol=0, atol=1e-9)
    assert np.abs(expected - Cider().score(predictions, references)).max() > 0.1, "the corpus must matter"


def test_a_perfect_answer_scores_most() -> None:
    references = [["A red dog runs on grass"], ["Two blue cats sleep at home"], ["One old bus stands still here"]]
    metric = Cider()
    assert isinstance(metric, Metric)
    scores = metric.score([texts[0] for texts in references], references)
    np.testing.assert_allclose(scores, 10.0, atol=1e-9)
    assert metric.scale * 1.0 == 100.0


def test_empty_answers_and_missing_references_score_zero_and_count() -> None:
    references = [["A red dog runs"], ["Two cats sleep"], [], ["A bus"]]
    scores = Cider().score(["", "two cats sleep", "a bus", "unrelated words"], references)
    assert scores.shape == (4,)
    assert scores[1] > 0
    assert scores[[0, 2, 3]].tolist() == [0, 0, 0]


def test_no_answers_give_no_scores() -> None:
    assert Cider().score([], []).shape == (0,)


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 predictions, 1"):
        Cider().score(["a", "b"], [["a"]])


@pytest.mark.parametrize("nothing", [[], [[], []]])
def test_fit_on_nothing_is_refused(nothing: list[list[str]]) -> None:
    with pytest.raises(DataError, match="corpus is empty"):
        Cider().fit(nothing)


def test_order_of_examples_does_not_matter() -> None:
    predictions, references = corpus(21, 120)
    order = list(range(120))
    random.Random(0).shuffle(order)
    straight = Cider().score(predictions, references)
    shuffled = Cider().score([predictions[i] for i in order], [references[i] for i in order])
    np.testing.assert_allclose(shuffled, straight[order], rtol=0, atol=1e-12)


def test_the_exact_name_gives_the_same_figures() -> None:
    predictions, references = corpus(30, 8)
    exact = component("metrics", "cider-d")
    assert (exact.name, exact.scale, exact.tasks) == ("cider-d", 100.0, Cider.tasks)
    exact.fit(references[4:])
    usual = Cider()
    usual.fit(references[4:])
    np.testing.assert_array_equal(exact.score(predictions, references), usual.score(predictions, references))
