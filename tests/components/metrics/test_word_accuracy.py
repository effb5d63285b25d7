"""Word accuracy: the words that all references share."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from icltool.components.metrics.word_accuracy import WordAccuracy, content_words
from icltool.contracts import Metric

PARAPHRASES = ("a dax blick", "One dax blick here.", "there is the DAX blick", "this is it: dax blick")


def test_content_words_are_those_of_every_reference() -> None:
    assert content_words(PARAPHRASES) == {"dax", "blick"}
    assert content_words(["It's a dog."]) == {"it's", "a", "dog"}
    assert content_words([]) == frozenset()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("a dax blick", 1.0),
        ("Blick, dax!", 1.0),
        ("dax dax", 0.5),
        ("a blick wug", 0.5),
        ("daxblick", 0.0),
        ("a", 0.0),
        ("", 0.0),
    ],
)
def test_share_of_the_content_words(answer: str, expected: float) -> None:
    assert WordAccuracy().score([answer], [PARAPHRASES]).tolist() == [expected]


def test_no_references_or_nothing_in_common_scores_zero_and_counts() -> None:
    metric = WordAccuracy()
    assert isinstance(metric, Metric)
    metric.fit([PARAPHRASES])
    assert metric.score(["dax", "dax", "dax"], [[], ["dax", "blick"], ["dax"]]).tolist() == [0.0, 0.0, 1.0]


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="0 predictions, 1"):
        WordAccuracy().score([], [["a"]])


@given(st.text(), st.lists(st.text(), max_size=4))
def test_between_zero_and_one(answer: str, references: list[str]) -> None:
    (score,) = WordAccuracy().score([answer], [references])
    assert 0.0 <= score <= 1.0
    if references and content_words(references):
        assert WordAccuracy().score([" ".join(references)], [references]).tolist() == [1.0]
