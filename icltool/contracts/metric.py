"""Metrics judge generated answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from icltool.contracts.abilities import NeedsReferences
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

    `scale` is the factor it is printed with (100 for per cent). See MadeForTasks, NeedsReferences, ChecksItself, ReadsField and
    GivesWay for what it may have besides.
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


@runtime_checkable
class ChecksItself(Protocol):
    """A metric that cannot run everywhere."""

    def check(self) -> None:
        """Raises an IclError when it cannot run here."""
        ...


@runtime_checkable
class ReadsField(Protocol):
    """A metric whose references are another field of the examples than `references`."""

    @property
    def reads(self) -> str:
        """The field's name: "raw_references"."""
        ...


@runtime_checkable
class GivesWay(Protocol):
    """A metric that has a stand-in where it is a data set's default and cannot run."""

    @property
    def instead(self) -> str:
        """The registered name of the metric that is reported then, under that name."""
        ...


def too_few_references(judge: object, references: Callable[[], Iterable[Sequence[str]]]) -> DataError | None:
    """Why a metric or scorer cannot judge by these references, those of each answer: its `least_references` are not there. One
    that needs none is not asked for them."""
    if not isinstance(judge, NeedsReferences):
        return None
    least = judge.least_references
    fewest = min(map(len, references()), default=least)
    if fewest >= least:
        return None
    return DataError(
        f"VQA accuracy needs {least} reference answers to a question, and there are questions with {fewest}: "
        "it would never be 1 there",
        "exact-match judges by fewer",
    )
