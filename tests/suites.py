"""Which parameters of a test belong to a long suite."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def apart(suite: str, later: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """The values for `pytest.mark.parametrize`; those in `later` are run by the suite of that name alone."""
    values = list(values)
    unknown = [value for value in later if value not in values]
    if unknown:
        raise ValueError(f"no such values: {unknown}")
    return [pytest.param(value, marks=getattr(pytest.mark, suite)) if value in later else value for value in values]
