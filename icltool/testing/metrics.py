"""The conformance suite of metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from icltool.contracts import Float64Array, Metric
from icltool.testing.expectations import built, expect, expect_equal

_SUBJECTS = ("a red dog", "two small boats", "the old man", "a green tree", "a yellow bus", "some people")
_REST = ("on the grass", "near the water", "in front of a house")


def made_up_references() -> list[tuple[str, ...]]:
    """18 answers' references, five paraphrases each."""
    return [
        (f"{s} {r}", f"there is {s} {r}", f"{s} seen {r}", f"a photo of {s}", f"{s} standing {r}")
        for s in _SUBJECTS
        for r in _REST
    ]


def check_metric(
    metric: Metric | Callable[[], Metric], *, references: Sequence[Sequence[str]] | None = None, tolerance: float = 1e-9
) -> None:
    """Checks a metric, or a class or factory that makes one, against `icltool.Metric`.

    `references` are eight answers' references at least (made up where none are given). Checked are: `name` and
    `scale`; float64 [n], finite, in the order of the predictions; nothing for no predictions; 0 for an answer without
    references; a right answer scores no less than a wrong one, and more on average; after `fit`, which takes any
    iterable, an answer's score does not depend on the others; the same call twice gives the same. Raises
    AssertionError that says what is wrong.
    """
    truth = [tuple(r) for r in (references or made_up_references())]
    right = [r[0] for r in truth]
    shifted = right[len(right) // 2 :] + right[: len(right) // 2]
    predictions = [a if i % 3 else b for i, (a, b) in enumerate(zip(right, shifted, strict=True))]
    first = built(metric, "score")
    expect(isinstance(getattr(first, "name", None), str) and first.name, "`name` must be a non-empty string")
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
    wanted = (len(predictions),)
    expect(scores.shape == wanted, f"scores of {len(predictions)} answers must have shape {wanted}, not {scores.shape}")
    expect(scores.dtype == np.float64, f"scores must be float64, not {scores.dtype}")
    expect(np.isfinite(scores).all(), f"scores must be finite: {scores.tolist()}")
    return scores
