"""Metrics judge generated answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import Float64Array


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer beside its references. `log_probs` holds the mean log-probability per token in nats of each choice of a
    classification, by label; empty where the answer was generated."""

    answer: str
    references: tuple[str, ...]
    log_probs: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
    """A score per answer; the corpus figure is the mean, unless the metric is a CorpusMetric.

    `scale` is the factor it is printed with (100 for per cent). An attribute `tasks` names the tasks that it is made for,
    where it is not made for all; a method `check()` raises an IclError when it cannot run here. An attribute `reads` names
    the field of an Example that `references` are taken from: "references" without one, or "raw_references". An attribute
    `instead` names the metric that is reported in its place, under its own name, where this one is a data set's default
    and cannot run.
    """

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


@runtime_checkable
class CorpusMetric(Protocol):
    """Ability of a metric whose corpus figure is no mean of its answers' scores (BLEU, macro-F1, AUC)."""

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        """The corpus figure under each of R weightings, float64 [R], unscaled.

        `weights` float64 [R, n] says how often each answer counts: a row of ones is the figure itself, other rows are
        bootstrap draws.
        """
        ...
