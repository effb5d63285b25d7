"""The cost of a query against a count by hand."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from icltool.components.interventions.shift import ShiftVectors
from icltool.components.interventions.stored import StoredOptions
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.contracts import Example, GenerationOptions, ScoringRequest
from icltool.engine.opening import open_session
from icltool.engine.query_cost import (
    QueryCost,
    counted_flops,
    device_name,
    pooled,
    prompt_tokens,
    query_cost,
)
from icltool.plugin.manager import component
from tests.commands.evaluate.vectors import vectors
from tests.components.models import tiny
from tests.conftest import Scenery


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_flops_of_a_causal_model_are_those_of_its_products(tmp_path: Path, attention: str) -> None:
    """One new token, one beam: a single forward pass, whose last position alone is read by the output layer."""
    model = component("models", "text-llm", path=tiny.gpt2(tmp_path), device="cpu", attention=attention)
    queries = [
        Example(n, "", n, "warm and neat " * (n + 1), "good", ("good",), choices=("good", "bad")) for n in range(3)
    ]
    requests = [ScoringRequest(query, tuple(queries[:n])) for n, query in enumerate(queries)]
    session = open_session("classification", model, GenerationOptions(1, 1), 8, 0)
    start = time.perf_counter()
    result = query_cost(session, requests)
    elapsed = time.perf_counter() - start
    tokens = prompt_tokens("classification", model, requests)
    assert tokens is not None
    layers, width, vocabulary = 2, 32, model.model.config.vocab_size
    by_hand = [
        layers
        * (2 * n * width * 3 * width + 2 * n * n * width * 2 + 2 * n * width * width + 2 * 2 * n * width * 4 * width)
        + 2 * width * vocabulary
        for n in tokens
    ]
    assert result.flops == sum(by_hand) / 3
    assert (result.queries, result.prompt_tokens) == (3, sum(tokens) / 3)
    assert result.device == device_name(model)
    assert 0 < result.seconds < elapsed
    assert query_cost(session, requests[:1], count_flops=False).flops is None


def test_images_are_encoded_and_nothing_is_kept(small_idefics: IdeficsModel, scenery: Scenery) -> None:
    icds = scenery.mixed(4, seed=5)
    session = open_session("caption", small_idefics, GenerationOptions(2, 3), 8, 2**20)
    one, three = (ScoringRequest(icds[0], tuple(icds[1:n])) for n in (2, 4))
    session.answers([one, three])
    ticks: list[int] = []
    costs = [query_cost(session, [request], tick=lambda: ticks.append(1)) for request in (one, three, one)]
    assert len(ticks) == 3
    assert costs[0].flops == costs[2].flops
    assert costs[0].flops is not None
    assert costs[1].flops is not None
    with counted_flops() as vision:
        small_idefics.image_features([icds[0].image], 1)
    assert costs[1].flops - costs[0].flops > 2 * vision.get_total_flops()


def test_the_cost_is_that_under_the_intervention(
    small_idefics: IdeficsModel, scenery: Scenery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icltool.engine.query_cost.REPEATS", 3)
    [query] = scenery.mixed(1, seed=5)
    session = open_session("caption", small_idefics, GenerationOptions(4, 3), 8, 2**20)
    alone = query_cost(session, [ScoringRequest(query, ())])
    calls: list[int] = []
    hook = small_idefics.decoder_layers()[0].register_forward_hook(lambda *_: calls.append(1))
    with session.applying(
        ShiftVectors(StoredOptions(method="live", file=vectors(tmp_path / "v.safetensors", small_idefics, 0.0)))
    ):
        steered = query_cost(session, [ScoringRequest(query, ())])
    hook.remove()
    assert steered.flops == alone.flops, "a shift is no product"
    assert len(calls) == (1 + 3) * 4, "four tokens each time"


def test_choices_are_ranked_one_by_one(tmp_path: Path) -> None:
    model = component("models", "text-llm", path=tiny.gpt2(tmp_path), device="cpu")
    session = open_session("classification", model, GenerationOptions(1, 1), 8, 0)
    two, four = (
        query_cost(session, [ScoringRequest(Example(1, "", 1, "warm and neat", c[0], (c[0],), choices=c), ())], True)
        for c in (("cold", "long"), ("cold", "long", "cold", "long"))
    )
    assert two.flops is not None
    assert four.flops == 2 * two.flops
    assert four.prompt_tokens == two.prompt_tokens


def test_compiled_parts_are_counted() -> None:
    layer = torch.nn.Linear(8, 4)
    layer.forward = torch.compile(layer.forward, backend="eager")  # type: ignore[method-assign]
    with torch.inference_mode():
        layer(torch.ones(3, 8))
        with counted_flops() as counter:
            layer(torch.ones(3, 8))
    assert counter.get_total_flops() == 2 * 3 * 8 * 4


def test_the_cost_of_queries_that_were_measured_apart() -> None:
    parts = [
        QueryCost(1, "cpu", 10.0, 4e9, 0.5),
        QueryCost(1, "cpu", 20.0, 8e9, 0.1),
        QueryCost(1, "cpu", 60.0, 6e9, 9.0),
    ]
    assert pooled(parts) == QueryCost(3, "cpu", 30.0, 6e9, 0.5)
    unknown = pooled([*parts, QueryCost(1, "cpu", None, None, 0.5)])
    assert (unknown.queries, unknown.prompt_tokens, unknown.flops) == (4, None, None)
