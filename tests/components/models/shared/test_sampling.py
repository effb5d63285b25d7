"""Sampled answers: the distribution, and that a draw depends on its own query and seed alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from icltool.commands.evaluate.options import EvaluateConfig
from icltool.components.models.shared.sampling import SeededSampling
from icltool.components.tasks import task_named
from icltool.contracts import GenerationOptions, ScoringRequest
from icltool.engine.generation import generation_options
from icltool.engine.opening import open_session

LOGITS = torch.tensor([2.0, 1.0, 0.0, -torch.inf])


def drawn(draws: list[int], **options: Any) -> list[int]:
    sampling = SeededSampling(GenerationOptions(5, 1, temperature=options.pop("temperature", 1.0), **options), draws)
    return [int(token) for token in sampling(torch.zeros(len(draws), 1), LOGITS.repeat(len(draws), 1)).argmax(1)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_from_the_softmax(temperature: float) -> None:
    counts = Counter(drawn(list(range(4000)), temperature=temperature))
    expected = (LOGITS / temperature).softmax(0)
    assert counts[3] == 0, "a token that is suppressed stays suppressed"
    for token in range(3):
        assert counts[token] / 4000 == pytest.approx(float(expected[token]), abs=0.03)


def test_top_p_leaves_the_most_probable_tokens() -> None:
    """Probabilities 0.665, 0.245, 0.090: two tokens reach 0.7, one reaches 0.6."""
    assert set(drawn(list(range(400)), top_p=0.7)) == {0, 1}
    assert set(drawn(list(range(400)), top_p=0.6)) == {0}
    assert set(drawn(list(range(400)), top_p=1e-9)) == {0}


def test_a_draw_depends_on_its_query_and_the_seed_alone() -> None:
    together = drawn(list(range(50)))
    assert [drawn([draw])[0] for draw in range(50)] == together
    assert drawn(list(range(49, -1, -1))) == together[::-1]
    assert drawn(list(range(50)), sampling_seed=1) != together


def test_answers_are_the_same_for_any_batch_size_with_and_without_a_prefix_cache(tiny_model: Any, scenery: Any) -> None:
    examples = scenery.mixed(8)
    requests = [ScoringRequest(query, tuple(examples[:2])) for query in examples[2:]]

    def answers(order: slice, batch: int, prefix_bytes: int, seed: int = 0) -> list[str]:
        options = GenerationOptions(6, 1, temperature=2.0, top_p=0.9, sampling_seed=seed)
        with open_session("caption", tiny_model, options, batch, 2**20, prefix_bytes=prefix_bytes) as session:
            return session.answers(requests[order])

    expected = answers(slice(None), 1, 0)
    assert answers(slice(None), 4, 0) == expected
    assert answers(slice(None), 4, 2**24) == expected
    assert answers(slice(None, None, -1), 3, 2**24) == expected[::-1]
    assert answers(slice(2, 4), 2, 0) == expected[2:4]
    assert answers(slice(None), 4, 0, seed=1) != expected
    assert len(set(expected)) > 1


def test_options_of_sampling_reach_identity_and_record_only_if_answers_are_sampled() -> None:
    names = {"temperature", "top_p", "sampling_seed"}
    assert not names & EvaluateConfig().identity().keys()
    assert not names & EvaluateConfig(temperature=0).identity().keys()
    sampled = EvaluateConfig(temperature=0.7, sampling_seed=3)
    assert {name: sampled.identity().get(name) for name in names} == {
        "temperature": 0.7, "sampling_seed": 3, "top_p": None,
    }  # fmt: skip
    options = generation_options(sampled.generation(), task_named("caption"), None)
    assert (options.num_beams, options.record()["temperature"], options.record()["sampling_seed"]) == (1, 0.7, 3)
    assert not names & generation_options({}, task_named("caption"), None).record().keys()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"top_p": 0.9}, "--top-p is an option of sampling"),
        ({"sampling_seed": 1}, "--sampling-seed is an option of sampling"),
        ({"temperature": 1.0, "num_beams": 3}, "use one of them"),
        ({"temperature": -1.0}, "greater than or equal to 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "greater than 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        EvaluateConfig(**options)
