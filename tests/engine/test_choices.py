"""Ranking the choices of a classification by their probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from icltool.contracts import Example, GenerationOptions, Model, ScoringRequest, TargetScore
from icltool.engine.choices import best_choice, rank_choices
from icltool.engine.session import Session
from icltool.errors import DataError
from icltool.testing import InMemorySession
from tests.conftest import Scenery


def example(identifier: int, text: str, *choices: str) -> Example:
    return Example(identifier, "", identifier, text, choices[0] if choices else "x", choices[:1], choices=choices)


class ScriptedSession(InMemorySession):
    """Gives each label the log-probability and length that the test wrote down."""

    def __init__(self, scores: dict[str, TargetScore]) -> None:
        super().__init__([], task="classification")
        self.scores = scores
        self.calls = 0

    def target_scores(self, requests: Sequence[ScoringRequest]) -> list[TargetScore]:
        self.calls += 1
        return [self.scores[request.query.label] for request in requests]


def test_equal_to_scoring_each_choice_alone() -> None:
    examples = [example(i, f"text {i}", "bad", "good", "very good indeed") for i in range(5)]
    session = InMemorySession(examples, task="classification")
    requests = [ScoringRequest(examples[i], tuple(examples[i + 1 : i + 3])) for i in range(4)]
    result = rank_choices(session, requests)
    for request, ranked in zip(requests, result, strict=True):
        query = request.query
        for label in query.choices:
            alone = Example(query.id, "", query.image_id, query.text, label, query.references, choices=query.choices)
            (score,) = session.target_scores([ScoringRequest(alone, request.demonstrations)])
            assert ranked[label] == score.mean
        assert list(ranked) == list(query.choices)


def test_the_world_s_model_ranks_as_it_scores(tiny_model: Model, scenery: Scenery) -> None:
    """The real session, in batches, against each prompt alone."""
    words = tuple(scenery.lexicon.colours[:3])
    examples = [
        replace(scenery.example(colour, shape, "what colour?"), choices=words)
        for shape in (0, 1)
        for colour in range(len(words))
    ]
    requests = [ScoringRequest(q, tuple(d for d in examples if d.id != q.id)[:2]) for q in examples]
    session = Session("vqa", tiny_model, GenerationOptions(2), batch_size=4)
    for request, ranked in zip(requests, rank_choices(session, requests), strict=True):
        assert list(ranked) == list(words)
        for label, mean in ranked.items():
            prompt = tiny_model.prompt("vqa", request.demonstrations, replace(request.query, label=label))
            (alone,) = tiny_model.score([prompt], 1)
            assert mean == pytest.approx(alone.mean, abs=1e-4)


def test_one_call_for_all_and_perplexity_per_token() -> None:
    session = ScriptedSession({"no": TargetScore(-2.0, 1), "certainly yes": TargetScore(-3.0, 3)})
    query = example(1, "a", "no", "certainly yes")
    ranked = rank_choices(session, [ScoringRequest(query, ()), ScoringRequest(query, (query,))])
    assert session.calls == 1
    assert ranked == [{"no": -2.0, "certainly yes": -1.0}] * 2
    assert best_choice(ranked[0]) == "certainly yes"  # though its whole probability is lower
    perplexities = {label: math.exp(-mean) for label, mean in ranked[0].items()}
    assert best_choice(ranked[0]) == min(perplexities, key=lambda label: perplexities[label])


def test_ties_go_to_the_earlier_choice() -> None:
    scores = {"b": TargetScore(-1.0, 1), "a": TargetScore(-2.0, 2)}
    for choices in (("b", "a"), ("a", "b")):
        (ranked,) = rank_choices(ScriptedSession(scores), [ScoringRequest(example(1, "t", *choices), ())])
        assert best_choice(ranked) == choices[0]


def test_no_choices_and_no_requests() -> None:
    session = ScriptedSession({})
    assert rank_choices(session, []) == []
    with pytest.raises(DataError, match="query 7 has no choices"):
        rank_choices(session, [ScoringRequest(example(7, "t"), ())])
    assert session.calls == 0
