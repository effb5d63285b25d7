"""Metrics judge generated answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from icltool.contracts.arrays import Float64Array
from icltool.errors import DataError


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
    the field of an Example that `references` are taken from: "references" without one, or "raw_references"; an attribute
    `least_references` says how many of them it needs for each answer. An attribute `instead` names the metric that is
    reported in its place, under its own name, where this one is a data set's default and cannot run.
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


def too_few_references(judge: Any, references: Callable[[], Iterable[Sequence[str]]]) -> DataError | None:
    """Why a metric or scorer cannot judge by these references, those of each answer: its `least_references` are not there. One
    that needs none is not asked for them."""
    least = getattr(judge, "least_references", 0)
    if not least:
        return None
    fewest = min(map(len, references()), default=least)
    if fewest >= least:
        return None
    return DataError(
        f"VQA accuracy needs {least} reference answers to a question, and there are questions with {fewest}: "
        "it would never be 1 there",
        "exact-match judges by fewer",
    )
