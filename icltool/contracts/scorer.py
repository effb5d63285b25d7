"""Scorers say how good a demonstration sequence is for a query. They see a session, never caches or beams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from icltool.contracts.arrays import Float64Array, FloatArray
from icltool.contracts.model import TargetScore
from icltool.contracts.records import Example
from icltool.contracts.task import Task


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """One question to a scorer: these demonstrations, in prompt order, before this query."""

    query: Example
    demonstrations: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Valuation:
    """`values` float64 [n]: f(S, x), larger is better. `log_probs` float64 [n]: the target's summed log-probability in
    nats, or None where the scorer computes none."""

    values: Float64Array
    log_probs: Float64Array | None = None


class ScoringSession(Protocol):
    """What a scorer may ask. Requests may be for different queries and of different lengths; answers keep their order."""

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
    """f(S, x): the value of demonstrations S for query x. The search takes differences: the gain of an ICD is
    f(S + ICD, x) - f(S, x).

    `needs` is a subset of {"model", "image", "text"}: what must be loaded. `tie_tolerance` is the rounding, in units of
    the value, that a different batch composition may cause in fp32; values closer than that are computed once more
    alone before they decide between beams. 0 where values are exact.
    """

    needs: frozenset[str]
    tie_tolerance: float

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        """The value of each request."""
        ...
