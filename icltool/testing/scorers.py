"""The conformance suite of scorers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from icltool.contracts import Example, Float64Array, Scorer, ScoringRequest, ScoringSession, Valuation
from icltool.testing.abilities import expect_judging_abilities
from icltool.testing.examples import make_examples
from icltool.testing.expectations import built, expect, expect_equal, expect_needs
from icltool.testing.sessions import InMemorySession


def check_scorer(
    scorer: Scorer | Callable[[], Scorer],
    *,
    examples: Sequence[Example] | None = None,
    session: ScoringSession | None = None,
    task: str = "caption",
) -> None:
    """Checks a scorer, or a class or factory that makes one, against `icltool.Scorer`.

    Requests are made of `examples` (at least eight; by default made up) and put to `session`, by default an `InMemorySession`
    that refuses everything not named in the scorer's `needs`. Checks `needs` and `tie_tolerance`; shape, dtype and finite
    values, including the empty sequence; one value per request in the order of the requests, independent of the batch and of
    its order (within `tie_tolerance`). Raises AssertionError with a description of the fault.
    """
    first = built(scorer, "evaluate")
    needs = expect_needs(first, frozenset({"model", "image", "text"}))
    expect_judging_abilities(first)
    tolerance = getattr(first, "tie_tolerance", None)
    expect(
        isinstance(tolerance, (int, float)) and tolerance >= 0, f"`tie_tolerance` must be 0 or more, not {tolerance!r}"
    )
    assert tolerance is not None
    if examples is None:
        with tempfile.TemporaryDirectory() as folder:
            examples = make_examples(Path(folder), 12, task=task, size=8)
    scoring_session = session or InMemorySession(examples, task=task, needs=needs)
    requests = make_requests(examples)

    def evaluate(some: Sequence[ScoringRequest]) -> Valuation:
        actual: Valuation = built(scorer, "evaluate").evaluate(scoring_session, some)
        return actual

    whole = evaluate(requests)
    _check_form(whole, len(requests))
    _check_form(evaluate([]), 0)
    order = np.random.default_rng(4).permutation(len(requests))
    half = np.arange(0, len(requests), 2)
    again = [("two calls with the same requests", np.arange(len(requests))), ("another order of the requests", order)]
    for name, positions in [*again, ("other requests in the batch", half)]:
        actual = evaluate([requests[i] for i in positions])
        _compare(actual, whole, positions, float(tolerance), f"{name} must not change a request's value")
    for i in range(len(requests)):
        _compare(
            evaluate([requests[i]]),
            whole,
            np.array([i]),
            float(tolerance),
            "a request alone has the value it has in a batch",
        )


def make_requests(examples: Sequence[Example]) -> list[ScoringRequest]:
    """Each of the first four examples as query, with zero to three of the others as demonstrations, in both orders."""
    requests = []
    for q in range(4):
        others = [e for i, e in enumerate(examples) if i != q][q : q + 3]
        requests += [ScoringRequest(examples[q], tuple(others[:k])) for k in range(len(others) + 1)]
        requests.append(ScoringRequest(examples[q], tuple(reversed(others))))
    return requests


def _check_form(actual: Valuation, count: int) -> None:
    expect(isinstance(actual, Valuation), f"`evaluate` must return a Valuation, not {type(actual).__name__}")
    _check_array("values", actual.values, count)
    if actual.log_probs is not None:
        _check_array("log_probs", actual.log_probs, count)
        expect(np.all(actual.log_probs <= 0), "log-probabilities cannot be positive")


def _check_array(name: str, array: Float64Array, count: int) -> None:
    expect(isinstance(array, np.ndarray), f"`{name}` must be a numpy array, not {type(array).__name__}")
    expect(array.shape == (count,), f"`{name}` of {count} requests must have shape ({count},), not {array.shape}")
    expect(array.dtype == np.float64, f"`{name}` must be float64, not {array.dtype}")
    expect(np.isfinite(array).all(), f"`{name}` must be finite: {array.tolist()}")


def _compare(actual: Valuation, whole: Valuation, positions: np.ndarray, tolerance: float, sentence: str) -> None:
    expect_equal(actual.values, whole.values[positions], sentence, tolerance)
    expect((actual.log_probs is None) == (whole.log_probs is None), "`log_probs` must be given always or never")
    if actual.log_probs is not None and whole.log_probs is not None:
        expect_equal(actual.log_probs, whole.log_probs[positions], f"{sentence} (log-probabilities)", 1e-3)
