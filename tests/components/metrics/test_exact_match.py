"""Answers that equal a reference in the common form of the VQA evaluation."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from icltool.components.metrics.exact_match import ExactMatch
from icltool.components.metrics.vqa_accuracy import VQAAccuracy, accuracy
from icltool.contracts import too_few_references


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("red", ("red",), 1.0),
        ("The Red.", ("red",), 1.0),
        ("two", ("2", "3"), 1.0),
        ("dont", ("don't",), 1.0),
        ("reddish", ("red",), 0.0),
        ("red", (), 0.0),
        ("", ("red",), 0.0),
    ],
)
def test_values(answer: str, references: tuple[str, ...], score: float) -> None:
    assert ExactMatch().score([answer], [references]).tolist() == [score]


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 predictions, 2 lists"):
        ExactMatch().score(["a"], [("a",), ("b",)])


@given(st.sampled_from(["red", "blue", "two"]), st.integers(4, 12))
def test_it_is_vqa_accuracy_where_all_annotators_agree(word: str, count: int) -> None:
    """And with fewer than four that accuracy cannot be 1."""
    assert accuracy(word, [word] * count) == ExactMatch().score([word], [(word,)])[0] == 1.0
    assert all(accuracy(word, [word] * few) < 1 for few in range(VQAAccuracy.least_references))


def test_what_is_too_few_is_said() -> None:
    assert too_few_references(VQAAccuracy(), lambda: [("a",) * 10, ("a",) * 4]) is None
    assert too_few_references(VQAAccuracy(), tuple) is None
    assert too_few_references(ExactMatch(), lambda: pytest.fail("it needs none")) is None
    fault = too_few_references(VQAAccuracy(), lambda: [("a",) * 10, ("a", "b")])
    assert fault is not None
    assert "needs 4 reference answers" in fault.message
    assert "some questions have only 2" in fault.message
