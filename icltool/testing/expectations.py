"""Building blocks of the conformance suites: expectations with a sentence, without any test framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike

from icltool.contracts.options import build

Failure = TypeVar("Failure", bound=BaseException)
Component = TypeVar("Component")


def expect(truth: object, sentence: str) -> None:
    """Raises AssertionError with `sentence` unless `truth` holds. (An `assert` would be lost under `python -O`.)"""
    if not truth:
        raise AssertionError(sentence)


def expect_equal(actual: ArrayLike, expected: ArrayLike, sentence: str, tolerance: float = 0.0) -> None:
    """Checks that the arrays have the same shape and differ by at most `tolerance`; the error names the first difference."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    expect(actual.shape == expected.shape, f"{sentence}: shape {actual.shape} against {expected.shape}")
    if tolerance:
        apart = ~np.isclose(actual, expected, rtol=0.0, atol=tolerance, equal_nan=True)
    elif actual.dtype.kind == "f" and expected.dtype.kind == "f":
        apart = (actual != expected) & ~(np.isnan(actual) & np.isnan(expected))
    else:
        apart = actual != expected
    if np.any(apart):
        place = tuple(int(i) for i in np.argwhere(apart)[0])
        raise AssertionError(f"{sentence}: at {place} {actual[place]} against {expected[place]}")


def expect_error(kind: type[Failure], action: Callable[[], object], sentence: str) -> Failure:
    """Runs `action`, which must raise `kind`, and returns that exception. Anything else is an AssertionError."""
    try:
        action()
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"{sentence}: it raised {type(error).__name__}: {error}") from error
    raise AssertionError(f"{sentence}: it raised nothing")


def expect_needs(component: object, allowed: frozenset[str]) -> frozenset[str]:
    """Checks that `component.needs` is a frozenset of names in `allowed`; returns it."""
    needs = getattr(component, "needs", None)
    expect(isinstance(needs, frozenset), f"`needs` must be a frozenset, not {type(needs).__name__}")
    assert isinstance(needs, frozenset)
    expect(needs <= allowed, f"`needs` may hold {sorted(allowed)}, it holds {sorted(needs)}")
    return needs


@overload
def built(component: Callable[[], Component], method: str) -> Component: ...
@overload
def built(component: Component, method: str) -> Component: ...
def built(component: object, method: str) -> object:
    """The component itself, or a new one with default options for a class or factory (anything callable without
    `method`)."""
    if isinstance(component, type) or not hasattr(component, method):
        expect(callable(component), f"{component!r} has no method {method!r} and cannot be called to make one that has")
        assert callable(component)
        component = build(getattr(component, "__name__", repr(component)), component, {})
    expect(hasattr(component, method), f"{type(component).__name__} has no method {method!r}")
    return component
