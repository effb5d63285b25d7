"""The cost plan: counts against a real search, and times from a clock that the test owns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.scorers.infoscore import InfoScore, InfoScoreOptions
from icltool.contracts import (
    CountsTokens,
    Example,
    GenerationOptions,
    Prompt,
    ScoringRequest,
    ScoringSession,
    Valuation,
)
from icltool.engine.beam import BeamSearch, SearchOptions
from icltool.engine.cost import ImageCost, StepCost, cost_rows, duration, measure, prompts_by_step
from icltool.engine.opening import open_session
from icltool.engine.session import Session
from tests.conftest import Scenery


def example(number: int) -> Example:
    return Example(number, "", number, "text", "label", ("label",))


class CountingScorer:
    """Counts requests by their number of demonstrations; each takes as many seconds as it has, plus one."""

    needs: frozenset[str] = frozenset()
    tie_tolerance = 0.0

    def __init__(self) -> None:
        self.prompts: dict[int, int] = {}
        self.now = 0.0

    def evaluate(self, session: ScoringSession, requests: Sequence[ScoringRequest]) -> Valuation:
        for request in requests:
            shots = len(request.demonstrations)
            self.prompts[shots] = self.prompts.get(shots, 0) + 1
            self.now += shots + 1
        values = [np.sin(sum((k + 1) * d.id for k, d in enumerate(r.demonstrations))) for r in requests]
        return Valuation(np.array(values))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 6), st.sampled_from(["left", "right"]))
def test_counts_are_those_of_the_search(shots: int, beam_size: int, more: int, order: str) -> None:
    scorer, candidates = CountingScorer(), shots + more
    options = SearchOptions(shots, beam_size, order)  # type: ignore[arg-type]
    session = Session("caption", None, GenerationOptions(5), 4)
    BeamSearch(scorer, session, options).search(example(0), [example(c + 1) for c in range(candidates)])
    assert [scorer.prompts[k] for k in range(shots + 1)] == prompts_by_step(options, candidates)


def test_the_published_size_is_the_published_number() -> None:
    """5,000 anchors x (64 + 5 x 63) prompts, and one without demonstrations for each."""
    assert prompts_by_step(SearchOptions(2, 5), 64) == [1, 64, 5 * 63]


def test_seconds_are_those_of_the_second_evaluation() -> None:
    scorer = CountingScorer()
    session = Session("caption", None, GenerationOptions(5), 4)
    pools = [(example(q), [example(10 * q + c) for c in range(1, 7)]) for q in (1, 2, 3)]
    steps, image = measure(scorer, session, SearchOptions(2, 3), pools, clock=lambda: scorer.now)
    assert [step.prompts for step in steps] == [1, 6, 15]
    assert [step.seconds for step in steps] == [1.0, 2.0, 3.0]
    assert [step.timed for step in steps] == [3, 18, 5]  # the clock passed the limit before the last length
    assert image == ImageCost(0.0, 0.0)
    assert all(step.tokens is None for step in steps)


def test_what_is_measured_is_what_a_search_asks(tiny_model: Any, scenery: Scenery) -> None:
    """The same prompts but for which beams survive: as many tokens computed and scored, in both construct orders."""
    query, *pool = scenery.mixed(6, seed=4)
    same = [replace(c, text=pool[0].text, label=pool[0].label) for c in pool]  # captions of one length
    for order in ("left", "right"):
        options = SearchOptions(2, 3, order)  # type: ignore[arg-type]
        session = open_session("caption", tiny_model, GenerationOptions(5), 4, 2**20)
        BeamSearch(InfoScore(InfoScoreOptions()), session, options).search(query, same)
        measured = open_session("caption", tiny_model, GenerationOptions(5), 4, 2**20)
        steps, image = measure(InfoScore(InfoScoreOptions()), measured, options, [(query, same)])
        assert sum(s.computed * s.prompts for s in steps) == pytest.approx(session.tokens_computed)
        assert sum(s.tokens * s.prompts for s in steps) == pytest.approx(session.tokens_scored)
        assert image.feature_bytes > 0


def test_rows_add_up() -> None:
    steps = [StepCost(0, 1, 8, 0.5, 10.0), StepCost(1, 20, 8, 0.25, 30.0)]
    rows, notes = cost_rows(steps, ImageCost(2.0, 2.0**20), anchors=10, images=50, cache_bytes=2**20)
    assert [row["prompts"] for row in rows] == [10, 200, 210]
    assert [row["tokens"] for row in rows] == [100, 6000, 6100]
    assert rows[-1]["expected time"] == duration(10 * 0.5 + 200 * 0.25 + 50 * 2.0)
    assert "50 images" in notes[0]
    assert "--image-cache-mb 51" in notes[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12, "12 s"), (600, "10 min"), (12_000, "3 h 20 min"), (367_200, "4 d 6 h"), (99.4, "99 s"), (100, "2 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_tokens_of_the_real_model(tiny_model: Any) -> None:
    """Counted without running, as many as the tokenizer gives."""
    prompt = Prompt("<s>Caption:", (), "a dax blick\n</s>")
    assert tiny_model.token_counts([prompt]) == [
        len(tiny_model.tokenizer(prompt.text + prompt.target, add_special_tokens=False)["input_ids"])
    ]
    assert isinstance(tiny_model, CountsTokens)
