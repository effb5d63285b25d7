"""Metrics judge generated answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import Float64Array


@runtime_checkable
class Metric(Protocol):
    """A score per answer; a corpus figure is the mean. `scale` is the factor it is printed with (100 for per cent)."""

    name: str
    scale: float

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Takes corpus statistics (document frequencies) from these references; nothing for metrics that have none.

        Without a call, statistics come from the references of each `score` call, as in the official evaluation.
        """
        ...

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n], unscaled. An answer without references scores 0, and counts."""
        ...
