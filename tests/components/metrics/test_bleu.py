"""BLEU against pycocoevalcap's, answer by answer and for the corpus."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.metrics.bleu import Bleu, BleuOptions
from icltool.contracts import CorpusMetric, Judgement, Metric
from icltool.errors import ConfigError
from icltool.plugin.manager import component
from icltool.testing import check_metric
from tests.components.metrics.captions import corpus

ORDERS = (1, 2, 3, 4)


def official(answers: dict[int, list[str]], references: dict[int, list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """(corpus figures [4], scores [4, n]) of tokenized texts by pycocoevalcap."""
    from pycocoevalcap.bleu.bleu import Bleu as Official

    figures, scores = Official(4).compute_score(references, answers, verbose=0)
    return np.asarray(figures), np.asarray(scores)


def judgements(predictions: list[str], references: list[list[str]]) -> list[Judgement]:
    return [Judgement(p, tuple(r)) for p, r in zip(predictions, references, strict=True)]


@pytest.mark.parametrize("order", ORDERS)
def test_conforms(order: int) -> None:
    check_metric(lambda: Bleu(BleuOptions(order=order)))
    assert isinstance(Bleu(BleuOptions(order=order)), Metric)
    assert isinstance(Bleu(BleuOptions(order=order)), CorpusMetric)
    assert Bleu(BleuOptions(order=order)).name == f"bleu-{order}"


@pytest.mark.parametrize("size", [1, 2, 600])
def test_equals_pycocoevalcap(official_tokens: Callable, size: int) -> None:
    predictions, references = corpus(size, size)
    answers = dict(enumerate(official_tokens([[text] for text in predictions])))
    figures, scores = official(answers, dict(enumerate(official_tokens(references))))
    for order in ORDERS:
        metric = Bleu(BleuOptions(order=order))
        np.testing.assert_allclose(metric.score(predictions, references), scores[order - 1], rtol=0, atol=1e-12)
        ours = metric.figures(judgements(predictions, references), np.ones((1, size)))
        np.testing.assert_allclose(ours, figures[order - 1 : order], rtol=0, atol=1e-12)
    if size > 2:
        assert abs(figures[3] - scores[3].mean()) > 0.01, "the corpus figure is no mean"


_SENTENCE = st.lists(st.sampled_from(["dog", "cat", "a", "red", "on", "x"]), max_size=9).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_SENTENCE, st.lists(_SENTENCE, min_size=1, max_size=4)), min_size=1, max_size=8), st.data())
def test_weights_count_answers_as_often(pairs: list[tuple[str, list[str]]], data: st.DataObject) -> None:
    """A weighting gives the figure of the corpus in which each answer stands as often. (The words are tokens.)"""
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)).filter(any))
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    answers = {i: [predictions[row]] for i, row in enumerate(rows)}
    expected, _ = official(answers, {i: references[row] for i, row in enumerate(rows)})
    weights = np.array([counts, [2 * count for count in counts]], dtype=np.float64)
    for order in ORDERS:
        ours = Bleu(BleuOptions(order=order)).figures(judgements(predictions, references), weights)
        assert ours[0] == pytest.approx(expected[order - 1], abs=1e-12)


def test_an_answer_without_references_counts() -> None:
    metric = Bleu(BleuOptions(order=1))
    scores = metric.score(["a red dog", "a red dog"], [["a red dog"], []])
    np.testing.assert_allclose(scores, [1.0, 0.0], atol=1e-8)
    assert scores[1] == 0.0
    both = metric.figures(judgements(["a red dog", "a red dog"], [["a red dog"], []]), np.ones((1, 2)))
    assert both[0] == pytest.approx(0.5)


def test_nothing_gives_nothing() -> None:
    assert Bleu(BleuOptions()).score([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 predictions, 1"):
        Bleu(BleuOptions()).score(["a", "b"], [["a"]])


@pytest.mark.parametrize("order", [0, 5, "four"])
def test_another_order_is_refused(order: object) -> None:
    with pytest.raises(ConfigError, match="must be an integer from 1 to 4"):
        component("metrics", "bleu-4", order=order)
