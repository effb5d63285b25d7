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
    """One answer with its references. `log_probs` holds the mean log-probability per token in nats of each choice of a
    classification, by label; it is empty for a generated answer. `aspects` are those of the query (see Example)."""

    answer: str
    references: tuple[str, ...]
    log_probs: Mapping[str, float] = field(default_factory=dict)
    aspects: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
    """A score per answer; the corpus figure is the mean, unless the metric is a CorpusMetric.

    Tables show it multiplied by `scale` (100 for per cent). See MadeForTasks, NeedsReferences, ChecksItself, ReadsField and
    GivesWay for optional abilities.
    """

    name: str
    scale: float

    def fit(self, corpus: Iterable[Sequence[str]]) -> None:
        """Computes corpus statistics (document frequencies) of these references, if the metric uses any.

        Without this call, each `score` call uses the statistics of its own references, as in the official evaluation.
        """
        ...

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Float64Array:
        """float64 [n], unscaled. An answer without references scores 0 and is included in the mean."""
        ...


@runtime_checkable
class CorpusMetric(Protocol):
    """Ability of a metric whose corpus figure is not the mean of its answers' scores (BLEU, macro-F1, AUC)."""

    def figures(self, judgements: Sequence[Judgement], weights: Float64Array) -> Float64Array:
        """The corpus figure under each of R weightings, float64 [R], unscaled.

        `weights` float64 [R, n] says how often each answer counts: a row of ones is the figure itself, other rows are
        bootstrap draws.
        """
        ...


@runtime_checkable
class ChecksItself(Protocol):
    """A metric with requirements that not every machine meets."""

    def check(self) -> None:
        """Raises an IclError when it cannot run here."""
        ...


@runtime_checkable
class ReadsField(Protocol):
    """A metric that reads its references from another field of the examples than `references`."""

    @property
    def reads(self) -> str:
        """The field's name: "raw_references"."""
        ...


@runtime_checkable
class GivesWay(Protocol):
    """A metric with a substitute for the case that it is a data set's default and cannot run."""

    @property
    def instead(self) -> str:
        """The registered name of the substitute, which is reported under that name."""
        ...


@runtime_checkable
class HasLimits(Protocol):
    """A metric by which some answers can never be right."""

    def limits(self, references: Iterable[Sequence[str]]) -> str:
        """A line that says how many of the queries with these references those are; "" for none."""
        ...


def too_few_references(judge: object, references: Callable[[], Iterable[Sequence[str]]]) -> DataError | None:
    """An error if answers have fewer references than the metric's or scorer's `least_references`, else None. `references` gives
    those of each answer; it is called only for a judge that needs several."""
    if not isinstance(judge, NeedsReferences):
        return None
    least = judge.least_references
    fewest = min(map(len, references()), default=least)
    if fewest >= least:
        return None
    return DataError(
        f"VQA accuracy needs {least} reference answers per question, and some questions have only {fewest}",
        "use exact-match, which needs fewer",
    )
