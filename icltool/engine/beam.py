"""Beam search over demonstration sequences (Lever-LM, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from icltool.contracts import Example, Float64Array, QueryResult, Scorer, ScoringRequest, Valuation
from icltool.engine.ranking import best
from icltool.engine.session import Session

ConstructOrder = Literal["left", "right"]
BeamScore = Literal["increment", "cumulative"]
Ids = tuple[int, ...]
#: Batches that the prompts of a step should fill, and the largest number of anchors searched together for it. A killed run
#: loses these anchors.
BATCHES, LARGEST_GROUP = 8, 32


@dataclass(frozen=True)
class SearchOptions:
    """`construct_order` "left" appends the new demonstration next to the query, "right" puts it before the others.

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


@dataclass
class _Anchor:
    """The search of one query so far; `exact` are values that were computed alone."""

    query: Example
    pool: Mapping[int, Example]
    empty: _Beam
    beams: list[_Beam]
    exact: dict[Ids, float] = field(default_factory=dict)


class BeamSearch:
    """Searches queries, several at once to fill batches.

    Stateless between queries: results depend neither on their order nor on the grouping. This holds in float32, for which
    scorers set their tolerances; in half precision, scores that differ by rounding may change places.
    """

    def __init__(self, scorer: Scorer, session: Session, options: SearchOptions) -> None:
        self._scorer = scorer
        self._session = session
        self._options = options

    def search(self, query: Example, candidates: Sequence[Example]) -> QueryResult:
        """The best sequences of `shots` demonstrations out of `candidates`, best first.

        Each step extends every beam with every candidate that it does not contain, scores all extensions and keeps the best
        `beam_size`. Extensions whose scores differ by less than rounding are scored again, each alone; remaining ties go to
        the better beam, then to the earlier candidate.
        """
        return self.search_many([(query, candidates)])[0]

    def search_many(self, anchors: Sequence[tuple[Example, Sequence[Example]]]) -> list[QueryResult]:
        """`search` of each (query, candidates), step by step together: all prompts of a step form one request.

        Results do not depend on earlier searches, even by rounding, unless lack of memory reduced the batch size.
        """
        self._session.reset()
        self._session.keeps_prefixes = True
        based = self._evaluate([ScoringRequest(query, ()) for query, _ in anchors])
        states = []
        for k, (query, candidates) in enumerate(anchors):
            empty = _Beam((), float(based.values[k]), _log_prob(based, k), ())
            states.append(_Anchor(query, {c.id: c for c in candidates}, empty, [empty]))
        for step in range(self._options.shots):
            # single candidates begin later sequences; few longer sequences survive, and those are computed again
            self._session.keeps_prefixes = step == 0 and self._options.shots > 1
            self._step(states)
        return [self._result(state) for state in states]

    def _step(self, anchors: Sequence[_Anchor]) -> None:
        """Replaces the beams of every anchor by its best extensions."""
        extensions = [
            [(b, self._joined(anchor.beams[b].ids, c)) for b, c in _open(anchor.beams, anchor.pool)]
            for anchor in anchors
        ]
        valued = self._evaluate(
            [r for anchor, pairs in zip(anchors, extensions, strict=True) for r in _requests(anchor, pairs)]
        )
        low = 0
        for anchor, pairs in zip(anchors, extensions, strict=True):
            part = slice(low, low + len(pairs))
            log_probs = None if valued.log_probs is None else valued.log_probs[part]
            anchor.beams = self._best_extensions(anchor, pairs, Valuation(valued.values[part], log_probs))
            low += len(pairs)

    def _best_extensions(self, anchor: _Anchor, pairs: Sequence[tuple[int, Ids]], valued: Valuation) -> list[_Beam]:
        """The best of an anchor's extensions, given as (rank of the beam, ids)."""
        beams, exact = anchor.beams, anchor.exact
        increment = self._options.beam_score == "increment"
        origins = np.array([beams[b].value if increment else anchor.empty.value for b, _ in pairs])

        def settle(positions: Sequence[int]) -> Float64Array:
            """Scores of these extensions from values that are computed alone."""
            sequences = [pairs[i][1] for i in positions]
            starts = [beams[pairs[i][0]].ids if increment else () for i in positions]
            missing = [ids for ids in dict.fromkeys([*sequences, *starts]) if ids not in exact]
            exact.update(zip(missing, self._alone(anchor, missing), strict=True))
            return np.array([exact[w] - exact[s] for w, s in zip(sequences, starts, strict=True)])

        # twice the tolerance: a score is a difference of two values, each of them rounded
        chosen = best(valued.values - origins, self._options.beam_size, 2 * self._scorer.tie_tolerance, settle)
        survivors = []
        for i in chosen:
            parent, ids = beams[pairs[i][0]], pairs[i][1]
            value = float(valued.values[i])
            survivors.append(_Beam(ids, value, _log_prob(valued, i), (*parent.gains, value - parent.value)))
        return survivors

    def _joined(self, ids: Ids, new: int) -> Ids:
        return (*ids, new) if self._options.construct_order == "left" else (new, *ids)

    def _evaluate(self, requests: Sequence[ScoringRequest]) -> Valuation:
        return self._scorer.evaluate(self._session, requests)

    def _alone(self, anchor: _Anchor, sequences: Sequence[Ids]) -> list[float]:
        plain = self._session.plain()
        requests = _requests(anchor, [(0, ids) for ids in sequences])
        return [float(self._scorer.evaluate(plain, [request]).values[0]) for request in requests]

    def _result(self, anchor: _Anchor) -> QueryResult:
        beams, empty, shots = anchor.beams, anchor.empty, self._options.shots
        cumulative = self._options.beam_score == "cumulative"
        return QueryResult(
            query_id=anchor.query.id,
            candidates=np.array(list(anchor.pool), dtype=np.int64),
            icd_ids=np.array([b.ids for b in beams], dtype=np.int64).reshape(len(beams), shots),
            scores=np.array([b.value - empty.value if cumulative else b.gains[-1] for b in beams], dtype=np.float64),
            step_scores=np.array([b.gains for b in beams], dtype=np.float64).reshape(len(beams), shots),
            values=np.array([b.value for b in beams], dtype=np.float64),
            log_probs=np.array([b.log_prob for b in beams], dtype=np.float64),
            base_value=empty.value,
            base_log_prob=empty.log_prob,
        )


def prompts_by_step(options: SearchOptions, candidates: int) -> list[int]:
    """The number of prompts with 0, 1 … `shots` demonstrations per anchor, without the few that settle near-ties.

    One prompt without demonstrations; then every surviving beam is extended with every candidate that it does not contain.
    """
    counts, beams = [1], 1
    for held in range(options.shots):
        extensions = beams * (candidates - held)
        counts.append(extensions)
        beams = min(options.beam_size, extensions)
    return counts


def anchors_to_fill(batch_size: int, options: SearchOptions, candidates: int) -> int:
    """The number of anchors that, searched together, fill BATCHES batches in the last step, so that sorting by length pays."""
    return max(1, min(LARGEST_GROUP, math.ceil(BATCHES * batch_size / prompts_by_step(options, candidates)[-1])))


def _open(beams: Sequence[_Beam], pool: Mapping[int, Example]) -> list[tuple[int, int]]:
    """(rank of the beam, candidate) for every candidate that the beam does not hold."""
    return [(b, c) for b in range(len(beams)) for c in pool if c not in beams[b].ids]


def _requests(anchor: _Anchor, pairs: Sequence[tuple[int, Ids]]) -> list[ScoringRequest]:
    return [ScoringRequest(anchor.query, tuple(anchor.pool[i] for i in ids)) for _, ids in pairs]


def _log_prob(valued: Valuation, position: int) -> float:
    return float("nan") if valued.log_probs is None else float(valued.log_probs[position])
