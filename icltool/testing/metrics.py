"""The conformance suite of metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from icltool.contracts import CorpusMetric, Float64Array, Judgement, Metric
from icltool.testing.abilities import expect_judging_abilities
from icltool.testing.expectations import built, expect, expect_equal

_SUBJECTS = ("a red dog", "two small boats", "the old man", "a green tree", "a yellow bus", "some people")
_REST = ("on the grass", "near the water", "in front of a house")


def made_up_references() -> list[tuple[str, ...]]:
    """References of 18 answers, five paraphrases each."""
    return [
        (f"{s} {r}", f"there is {s} {r}", f"{s} seen {r}", f"a photo of {s}", f"{s} standing {r}")
        for s in _SUBJECTS
        for r in _REST
    ]


def check_metric(
    metric: Metric | Callable[[], Metric], *, references: Sequence[Sequence[str]] | None = None, tolerance: float = 1e-9
) -> None:
    """Checks a metric, or a class or factory that makes one, against `icltool.Metric`.

    `references` are the references of at least eight answers (by default made up). Checks `name` and `scale`; scores (float64
    [n], finite, in the order of the predictions; an empty array for no predictions; 0 for an answer without references); that
    a right answer scores no less than a wrong one, and more on average; that after `fit`, which takes any iterable, an
    answer's score does not depend on the others; that repeated calls give the same.

    A `CorpusMetric` gets answers with the log-probabilities of the first references as choices. Checks `figures` (float64
    [R], also without weightings); that a weighting's figure depends neither on the other weightings nor on the order of the
    answers; that doubled weights change nothing, a weight of 2 equals a repeated answer, and a weight of 0 an omitted one;
    that right answers have no lower figure than wrong ones. Raises AssertionError with a description of the fault.
    """
    truth = [tuple(r) for r in (references or made_up_references())]
    right = [r[0] for r in truth]
    shifted = right[len(right) // 2 :] + right[: len(right) // 2]
    predictions = [a if i % 3 else b for i, (a, b) in enumerate(zip(right, shifted, strict=True))]
    first = built(metric, "score")
    expect(isinstance(getattr(first, "name", None), str) and first.name, "`name` must be a non-empty string")
    expect_judging_abilities(first)
    scale = getattr(first, "scale", None)
    expect(isinstance(scale, (int, float)) and scale > 0, f"`scale` must be a positive number, not {scale!r}")

    unfitted = _score(first, predictions, truth)
    expect_equal(_score(first, predictions, truth), unfitted, "two calls of `score` give different scores", tolerance)
    _score(first, [], [])
    fitted = built(metric, "score")
    fitted.fit(iter(truth))
    whole = _score(fitted, predictions, truth)
    order = np.random.default_rng(6).permutation(len(truth))
    shuffled = _score(fitted, [predictions[i] for i in order], [truth[i] for i in order])
    expect_equal(shuffled, whole[order], "after `fit`, scores depend on the order of the answers", tolerance)
    for i in range(4):
        alone = _score(fitted, [predictions[i]], [truth[i]])
        expect_equal(alone, whole[i : i + 1], "after `fit`, an answer alone has another score", tolerance)
    _check_judgement(fitted, right, shifted, truth)
    if isinstance(fitted, CorpusMetric):
        _check_figures(fitted, judgements(predictions, truth), tolerance)
        worse, better = (_figures(fitted, judgements(a, truth), np.ones((1, len(truth)))) for a in (shifted, right))
        expect(better[0] > worse[0], f"right answers have the figure {better[0]}, wrong ones {worse[0]}")


def judgements(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Judgement]:
    """Each answer as the most probable one of all first references."""
    choices = tuple(dict.fromkeys(r[0] for r in references))
    rng = np.random.default_rng(8)
    judged = []
    for answer, truth in zip(predictions, references, strict=True):
        log_probs = dict(zip(choices, (-1 - 3 * rng.random(len(choices))).tolist(), strict=True))
        if answer in log_probs:
            log_probs[answer] = -0.5 * float(rng.random())
        judged.append(Judgement(answer, tuple(truth), log_probs))
    return judged


def _check_figures(metric: CorpusMetric, judged: list[Judgement], tolerance: float) -> None:
    rng = np.random.default_rng(9)
    count = len(judged)
    ones = np.ones((1, count))
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=3).astype(np.float64)
    weights = np.concatenate([ones, drawn + 1])
    actual = _figures(metric, judged, weights)
    expect(np.isfinite(actual).all(), f"figures of answers that all have weight must be finite: {actual.tolist()}")
    _figures(metric, judged, weights[:0])
    for i in range(len(weights)):
        alone = _figures(metric, judged, weights[i : i + 1])
        expect_equal(alone, actual[i : i + 1], "a weighting's figure depends on the other weightings", tolerance)
    order = rng.permutation(count)
    shuffled = _figures(metric, [judged[i] for i in order], weights[:, order])
    expect_equal(shuffled, actual, "figures depend on the order of the answers", tolerance)
    doubled = _figures(metric, judged, 2 * weights)
    expect_equal(doubled, actual, "doubling all weights must not change a figure", tolerance)
    twice = _figures(metric, [*judged, judged[1]], np.ones((1, count + 1)))
    expect_equal(
        _figures(metric, judged, 1 + np.eye(count)[1:2]),
        twice,
        "a weight of 2 must equal a repeated answer",
        tolerance,
    )
    without = _figures(metric, judged[1:], ones[:, 1:])
    expect_equal(
        _figures(metric, judged, 1 - np.eye(count)[:1]), without, "a weight of 0 must equal leaving it out", tolerance
    )


def _figures(metric: CorpusMetric, judged: Sequence[Judgement], weights: Float64Array) -> Float64Array:
    figures = metric.figures(judged, weights)
    expect(isinstance(figures, np.ndarray), f"`figures` must return a numpy array, not {type(figures).__name__}")
    expected = (len(weights),)
    expect(
        figures.shape == expected,
        f"figures of {len(weights)} weightings must have shape {expected}, not {figures.shape}",
    )
    expect(figures.dtype == np.float64, f"figures must be float64, not {figures.dtype}")
    return figures


def _check_judgement(metric: Metric, right: list[str], wrong: list[str], truth: list[tuple[str, ...]]) -> None:
    """Right answers beat wrong ones and empty ones; an answer without references scores 0."""
    good, bad = _score(metric, right, truth), _score(metric, wrong, truth)
    expect(
        np.all(good >= bad), "an answer that equals its reference scores less than one that belongs to another query"
    )
    expect(good.mean() > bad.mean(), "answers that equal their references score no more than wrong ones")
    empty = _score(metric, [""] * len(truth), truth)
    expect(np.all(empty <= good), "an empty answer scores more than a right one")
    lonely = _score(metric, [right[0], right[1]], [truth[0], ()])
    expect(lonely[1] == 0, f"an answer without references must score 0 (and count), not {lonely[1]}")


def _score(metric: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
    scores = metric.score(predictions, references)
    expect(isinstance(scores, np.ndarray), f"`score` must return a numpy array, not {type(scores).__name__}")
    expected = (len(predictions),)
    expect(
        scores.shape == expected, f"scores of {len(predictions)} answers must have shape {expected}, not {scores.shape}"
    )
    expect(scores.dtype == np.float64, f"scores must be float64, not {scores.dtype}")
    expect(np.isfinite(scores).all(), f"scores must be finite: {scores.tolist()}")
    return scores
