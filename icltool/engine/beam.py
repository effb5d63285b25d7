"""Beam search over demonstration sequences (Lever-LM, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from icltool.contracts import Example, Float64Array, QueryResult, Scorer, ScoringRequest, Valuation
from icltool.engine.ranking import best
from icltool.engine.session import Session

ConstructOrder = Literal["left", "right"]
BeamScore = Literal["increment", "cumulative"]
Ids = tuple[int, ...]


@dataclass(frozen=True)
class SearchOptions:
    """`construct_order` "left" appends the new ICD next to the query, "right" puts it in front of the others.

    `beam_score` "increment" ranks extensions by the gain of their last step, "cumulative" by the whole gain.
    """

    shots: int
    beam_size: int
    construct_order: ConstructOrder = "left"
    beam_score: BeamScore = "increment"


@dataclass(frozen=True)
class _Beam:
    """A sequence so far: ids in prompt order, its value, and the gain of each step in the order of the search."""

    ids: Ids
    value: float
    log_prob: float
    gains: tuple[float, ...]


class BeamSearch:
    """Searches one query at a time. Stateless between queries, so results depend on neither order nor resumption."""

    def __init__(self, scorer: Scorer, session: Session, options: SearchOptions) -> None:
        self._scorer = scorer
        self._session = session
        self._options = options

    def search(self, query: Example, candidates: Sequence[Example]) -> QueryResult:
        """The best sequences of `shots` ICDs out of `candidates`, best first.

        In each step every beam is extended with every candidate that it does not hold, all extensions are scored and the
        best `beam_size` survive. Extensions whose scores differ by less than rounding are scored once more, each alone;
        what is then still equal is decided by beam rank and candidate position.
        """
        pool = {c.id: c for c in candidates}
        exact: dict[Ids, float] = {}
        base = self._evaluate(query, pool, [()])
        empty = _Beam((), float(base.values[0]), _log_prob(base, 0), ())
        beams = [empty]
        for _ in range(self._options.shots):
            beams = self._extend(query, pool, beams, empty.value, exact)
        return self._result(query, candidates, beams, empty.value, empty.log_prob)

    def _extend(
        self, query: Example, pool: Mapping[int, Example], beams: list[_Beam], base: float, exact: dict[Ids, float]
    ) -> list[_Beam]:
        pairs = [(b, self._joined(beams[b].ids, c)) for b in range(len(beams)) for c in pool if c not in beams[b].ids]
        valued = self._evaluate(query, pool, [ids for _, ids in pairs])
        increment = self._options.beam_score == "increment"
        origins = np.array([beams[b].value if increment else base for b, _ in pairs])

        def settle(positions: Sequence[int]) -> Float64Array:
            """Scores of these extensions from values that are computed alone."""
            wanted = [pairs[i][1] for i in positions]
            starts = [beams[pairs[i][0]].ids if increment else () for i in positions]
            missing = [ids for ids in dict.fromkeys([*wanted, *starts]) if ids not in exact]
            exact.update(zip(missing, self._alone(query, pool, missing), strict=True))
            return np.array([exact[w] - exact[s] for w, s in zip(wanted, starts, strict=True)])

        # twice the tolerance: a score is a difference of two values, each of them rounded
        chosen = best(valued.values - origins, self._options.beam_size, 2 * self._scorer.tie_tolerance, settle)
        kept = []
        for i in chosen:
            parent, ids = beams[pairs[i][0]], pairs[i][1]
            value = float(valued.values[i])
            kept.append(_Beam(ids, value, _log_prob(valued, i), (*parent.gains, value - parent.value)))
        return kept

    def _joined(self, ids: Ids, new: int) -> Ids:
        return (*ids, new) if self._options.construct_order == "left" else (new, *ids)

    def _requests(self, query: Example, pool: Mapping[int, Example], sequences: Sequence[Ids]) -> list[ScoringRequest]:
        return [ScoringRequest(query, tuple(pool[i] for i in ids)) for ids in sequences]

    def _evaluate(self, query: Example, pool: Mapping[int, Example], sequences: Sequence[Ids]) -> Valuation:
        return self._scorer.evaluate(self._session, self._requests(query, pool, sequences))

    def _alone(self, query: Example, pool: Mapping[int, Example], sequences: Sequence[Ids]) -> list[float]:
        plain = self._session.plain()
        return [
            float(self._scorer.evaluate(plain, [request]).values[0])
            for request in self._requests(query, pool, sequences)
        ]

    def _result(
        self, query: Example, candidates: Sequence[Example], beams: list[_Beam], base_value: float, base_log_prob: float
    ) -> QueryResult:
        cumulative = self._options.beam_score == "cumulative"
        return QueryResult(
            query_id=query.id,
            candidates=np.array([c.id for c in candidates], dtype=np.int64),
            icd_ids=np.array([b.ids for b in beams], dtype=np.int64).reshape(len(beams), self._options.shots),
            scores=np.array([b.value - base_value if cumulative else b.gains[-1] for b in beams], dtype=np.float64),
            step_scores=np.array([b.gains for b in beams], dtype=np.float64).reshape(len(beams), self._options.shots),
            values=np.array([b.value for b in beams], dtype=np.float64),
            log_probs=np.array([b.log_prob for b in beams], dtype=np.float64),
            base_value=base_value,
            base_log_prob=base_log_prob,
        )


def _log_prob(valued: Valuation, position: int) -> float:
    return float("nan") if valued.log_probs is None else float(valued.log_probs[position])
