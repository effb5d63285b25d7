"""Scorers measure how good a demonstration sequence is for a query. They see a session, never caches or beams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import Float64Array, FloatArray
from icltool.contracts.model import TargetScore
from icltool.contracts.records import Example, shown
from icltool.contracts.task import Task


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """One question to a scorer: these demonstrations, in prompt order, before this query.

    The demonstrations are held as they are shown to the query (see `icltool.contracts.shown`).
    """

    query: Example
    demonstrations: tuple[Example, ...]

    def __post_init__(self) -> None:
        # those that are shown already have neither labels nor followers
        if any((self.query.rule and example.labels) or example.followed_by for example in self.demonstrations):
            object.__setattr__(self, "demonstrations", tuple(shown(self.demonstrations, self.query)))
        if self.query.followed_by:
            object.__setattr__(self, "query", replace(self.query, followed_by=()))


@dataclass(frozen=True, slots=True)
class Valuation:
    """`values` float64 [n]: f(S, x), larger is better. `log_probs` float64 [n]: the target's summed log-probability in
    nats, or None if the scorer computes none."""

    values: Float64Array
    log_probs: Float64Array | None = None


class ScoringSession(Protocol):
    """What a scorer may call. Requests may differ in query and length; results keep the order of the requests."""

    task: Task | str

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        """The log-probability of each query's label after its demonstrations."""
        ...

    def answers(self, requests: Sequence[ScoringRequest]) -> list[str]:
        """The model's generated answer to each request, cleaned."""
        ...

    def features(self, kind: str, examples: Sequence[Example]) -> FloatArray:
        """Stored embeddings float32 [n, D] of index-set examples; `kind` is "image" or "text" and must be in the
        scorer's `needs`."""
        ...

    def reference_corpus(self) -> Iterable[tuple[str, ...]]:
        """The references of every example of the index set, for corpus statistics such as document frequencies."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """f(S, x): the value of demonstrations S for query x. The search uses differences: the gain of a demonstration d is
    f(S + d, x) - f(S, x).

    `needs` is a subset of {"model", "image", "text"}: what must be loaded. `tie_tolerance` is the rounding error, in units of
    the value, that another batch composition may cause in float32. Values closer than that are computed again, each alone,
    before they decide between beams. 0 if values are exact.
    """

    needs: frozenset[str]
    tie_tolerance: float

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        """The value of each request."""
        ...
