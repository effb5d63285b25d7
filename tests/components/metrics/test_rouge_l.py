"""ROUGE-L against pycocoevalcap's, and the common subsequence against the table of the textbooks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, strategies as st

from icltool.components.metrics.rouge_l import RougeL, common_length
from icltool.testing import check_metric
from tests.components.metrics.captions import corpus


def test_conforms() -> None:
    check_metric(RougeL)


def test_equals_pycocoevalcap(official_tokens: Callable) -> None:
    from pycocoevalcap.rouge.rouge import Rouge

    predictions, references = corpus(3, 600)
    predictions[0], references[0] = "", [""]  # one empty word each, to the evaluation
    answers = dict(enumerate(official_tokens([[text] for text in predictions])))
    figure, expected = Rouge().compute_score(dict(enumerate(official_tokens(references))), answers)
    scores = RougeL().score(predictions, references)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.mean(), figure, rtol=0, atol=1e-12)


def table_length(one: list[str], other: list[str]) -> int:
    table = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
    for i, word in enumerate(one, 1):
        for j, theirs in enumerate(other, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if word == theirs else max(table[i - 1, j], table[i, j - 1])
    return int(table[-1, -1])


_WORDS = st.lists(st.sampled_from("abcd"), max_size=70)


@given(_WORDS, _WORDS)
def test_the_common_subsequence_is_the_longest(one: list[str], other: list[str]) -> None:
    assert common_length(one, other) == table_length(one, other)


def test_an_answer_without_references_scores_zero() -> None:
    assert RougeL().score(["a dog", ""], [[], []]).tolist() == [0.0, 0.0]
    assert RougeL().score([], []).shape == (0,)
