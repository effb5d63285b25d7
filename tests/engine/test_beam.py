"""Beam search against a plain search written out by hand, on scorers whose values are known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.contracts import Example, GenerationOptions, QueryResult, ScoringRequest, ScoringSession, Valuation
from icltool.engine.beam import (
    BATCHES,
    LARGEST_GROUP,
    BeamSearch,
    SearchOptions,
    anchors_to_fill,
    prompts_by_step,
)
from icltool.engine.session import Session


def example(example_id: int) -> Example:
    return Example(example_id, "", example_id, "t", "l", ("l",))


class TableScorer:
    """The value of a sequence is looked up in a table that a seed makes; order matters."""

    needs: frozenset[str] = frozenset()
    tie_tolerance = 0.0

    def __init__(self, seed: int, levels: int) -> None:
        self.seed, self.levels = seed, levels

    def value(self, ids: tuple[int, ...]) -> float:
        return float(np.random.default_rng([self.seed, 5, *ids]).integers(self.levels)) / self.levels

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        return Valuation(np.array([self.value(tuple(d.id for d in r.demonstrations)) for r in requests]))


def search(scorer: TableScorer, options: SearchOptions, candidates: Sequence[int]) -> QueryResult:
    session = Session("caption", None, GenerationOptions(5), 4)
    return BeamSearch(scorer, session, options).search(example(0), [example(c) for c in candidates])


def plain_search(scorer: TableScorer, options: SearchOptions, candidates: Sequence[int]) -> list[tuple[int, ...]]:
    """The twin: every extension of every beam is listed, scored and sorted; ties by beam, then candidate."""
    beams: list[tuple[int, ...]] = [()]
    for _ in range(options.shots):
        extensions = []
        for rank, beam in enumerate(beams):
            for place, candidate in enumerate(candidates):
                if candidate in beam:
                    continue
                ids = (*beam, candidate) if options.construct_order == "left" else (candidate, *beam)
                origin = scorer.value(beam) if options.beam_score == "increment" else scorer.value(())
                extensions.append((-(scorer.value(ids) - origin), rank, place, ids))
        beams = [ids for *_, ids in sorted(extensions)[: options.beam_size]]
    return beams


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([2, 5, 1000]),
    shots=st.integers(1, 3),
    beam_size=st.integers(1, 6),
    order=st.sampled_from(["left", "right"]),
    score=st.sampled_from(["increment", "cumulative"]),
    pool=st.integers(3, 7),
)
def test_equals_the_plain_search(
    seed: int, levels: int, shots: int, beam_size: int, order: str, score: str, pool: int
) -> None:
    options = SearchOptions(shots, beam_size, order, score)  # type: ignore[arg-type]
    scorer, candidates = TableScorer(seed, levels), list(range(10, 10 + pool))
    result = search(scorer, options, candidates)
    expected = plain_search(scorer, options, candidates)
    assert [tuple(row) for row in result.icd_ids.tolist()] == expected
    assert result.base_value == scorer.value(())
    np.testing.assert_allclose(result.values, [scorer.value(ids) for ids in expected])
    np.testing.assert_allclose(result.step_scores.sum(axis=1), result.values - result.base_value, atol=1e-12)
    gain = result.step_scores[:, -1] if score == "increment" else result.values - result.base_value
    np.testing.assert_allclose(result.scores, gain)


def test_a_beam_wide_enough_finds_the_best_sequence_of_all() -> None:
    scorer, candidates = TableScorer(3, 10**6), [1, 2, 3, 4, 5]
    result = search(scorer, SearchOptions(3, 60, "left", "cumulative"), candidates)
    best = max(permutations(candidates, 3), key=scorer.value)
    assert tuple(result.icd_ids[0]) == best
    assert len(result.icd_ids) == 60


@pytest.mark.parametrize(("order", "newest"), [("left", -1), ("right", 0)])
def test_where_the_new_demonstration_stands(order: str, newest: int) -> None:
    class Rising(TableScorer):
        """Only sequences whose ids were added in rising order gain anything; ids tell which came last."""

        def value(self, ids: tuple[int, ...]) -> float:
            added = ids if order == "left" else ids[::-1]
            return float(len(ids)) if list(added) == sorted(added) else 0.0

    result = search(Rising(0, 1), SearchOptions(3, 1, order), [7, 8, 9])  # type: ignore[arg-type]
    assert result.icd_ids[0].tolist() == ([7, 8, 9] if order == "left" else [9, 8, 7])
    assert result.icd_ids[0][newest] == 9


class NoisyScorer(TableScorer):
    """Values are off by rounding that depends on the batch, as in fp32; alone they are exact."""

    tie_tolerance = 1e-6

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        exact = super().evaluate(session, requests).values
        if len(requests) == 1:
            return Valuation(exact)
        noise = np.random.default_rng([len(requests), self.seed]).uniform(-1, 1, len(requests))
        return Valuation(exact + noise * self.tie_tolerance)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), score=st.sampled_from(["increment", "cumulative"]))
def test_rounding_of_batches_never_changes_the_sequences(seed: int, score: str) -> None:
    options = SearchOptions(3, 4, "left", score)  # type: ignore[arg-type]
    candidates = list(range(20, 30))
    noisy = search(NoisyScorer(seed, 4), options, candidates)
    assert [tuple(r) for r in noisy.icd_ids.tolist()] == plain_search(TableScorer(seed, 4), options, candidates)


class QueryScorer(TableScorer):
    """Values that depend on the query too; `calls` counts requests to the scorer."""

    calls = 0

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        self.calls += 1
        return Valuation(np.array([self.value((r.query.id, *(d.id for d in r.demonstrations))) for r in requests]))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shots=st.integers(1, 3),
    pools=st.lists(st.lists(st.integers(100, 110), min_size=3, max_size=6, unique=True), min_size=1, max_size=4),
    order=st.sampled_from(["left", "right"]),
)
def test_searched_together_is_searched_alone(seed: int, shots: int, pools: list[list[int]], order: str) -> None:
    """Pools of any sizes; every step of all anchors is one request."""
    options = SearchOptions(shots, 2, order)  # type: ignore[arg-type]
    anchors = [(example(k), [example(c) for c in pool]) for k, pool in enumerate(pools)]
    session = Session("caption", None, GenerationOptions(5), 4)
    together, alone = QueryScorer(seed, 20), QueryScorer(seed, 20)
    actual = BeamSearch(together, session, options).search_many(anchors)
    assert together.calls == 1 + shots
    for result, (query, pool) in zip(actual, anchors, strict=True):
        expected = BeamSearch(alone, session, options).search(query, pool)
        for name in ("candidates", "icd_ids", "scores", "step_scores", "values"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))


@given(batch=st.integers(1, 600), candidates=st.integers(2, 100), beams=st.integers(1, 8))
def test_enough_anchors_fill_the_batches(batch: int, candidates: int, beams: int) -> None:
    options = SearchOptions(2, beams)
    count, last = anchors_to_fill(batch, options, candidates), prompts_by_step(options, candidates)[-1]
    assert 1 <= count <= LARGEST_GROUP
    assert count == LARGEST_GROUP or count * last >= BATCHES * batch
    assert count == 1 or (count - 1) * last < BATCHES * batch
