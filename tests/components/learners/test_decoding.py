"""Decoding: fast ways against plain ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from icltool.components.learners.lever_lm import decoding
from icltool.components.learners.lever_lm.building import build_model
from icltool.components.learners.lever_lm.decoding import (
    EveryRow,
    NearestKey,
    beam,
    closed_rows,
    first_largest,
    greedy,
    next_row,
)
from icltool.components.learners.lever_lm.model import SelectorModel
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.contracts.options import options_from
from tests.components.learners.plain_decoding import plain_beam, plain_greedy

DIM = 8


def parts(network: str, examples: int, queries: int, seed: int = 0, repeated: int = 1, layers: int = 1) -> tuple:
    """(model, query features, index features, tokens, targets); each index vector occurs `repeated` times."""
    torch.manual_seed(seed)
    options = options_from(
        "lever-lm", LeverLMOptions, {"network": network, "n_embd": 16, "n_head": 2, "n_layer": layers, "dropout": 0.0}
    )
    model = build_model(examples, DIM, options).double().eval().requires_grad_(False)
    query = {m: torch.randn(queries, DIM, dtype=torch.float64) for m in ("image", "text")}
    distinct = -(-examples // repeated)
    table = {m: torch.randn(distinct, DIM).repeat(repeated, 1)[:examples] for m in ("image", "text")}
    tokens = torch.arange(examples)
    targets = model.targets(tokens, {m: v.double() for m, v in table.items()})
    return model, query, table, tokens, targets


def log_prob(
    model: SelectorModel, query: dict, table: dict, targets: torch.Tensor, q: int, rows: tuple, shut: set
) -> float:
    """The log-probability of one sequence, each step over the rows that are allowed then."""
    total = 0.0
    for place, row in enumerate(rows):
        embedded = model.start_embedding({m: v[[q]] for m, v in query.items()})
        if place:
            before = torch.tensor([rows[:place]])
            embedded = torch.cat(
                [embedded, model.icd_embedding(before, {m: v[before].double() for m, v in table.items()})], 1
            )
        scores = model.scores(model.advance(embedded)[0][:, -1], targets)[0]
        allowed = [r for r in range(len(targets)) if r not in shut and r not in rows[:place]]
        total += float(scores[allowed].log_softmax(0)[allowed.index(row)])
    return total


@settings(max_examples=30, deadline=None)
@given(st.integers(40, 200), st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_searching_keys_equals_scoring_every_row(examples: int, queries: int, repeated: int, seed: int) -> None:
    model, query, _, _, keys = parts("pointer", examples, queries, seed, repeated)
    hidden = model.advance(model.start_embedding(query))[0][:, -1]
    rng = np.random.default_rng(seed)
    closed = closed_rows([np.flatnonzero(rng.random(examples) < rng.random() * 0.5) for _ in range(queries)], examples)
    fast, plain = (
        NearestKey(model, keys).best(hidden, closed.clone()),
        EveryRow(model, keys).best(hidden, closed.clone()),
    )
    assert torch.equal(fast, plain)
    assert not closed.gather(1, fast[:, None]).any()


def test_a_doubtful_search_is_settled_by_scoring_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hundreds of equal vectors, the best lies beyond what was fetched."""
    model, query, _, _, keys = parts("pointer", 400, 5, repeated=200)
    hidden = model.advance(model.start_embedding(query))[0][:, -1]
    closed = closed_rows([np.arange(0)] * 5, 400)
    monkeypatch.setattr(decoding, "MARGIN", 3)
    chosen = NearestKey(model, keys).best(hidden, closed.clone())
    assert torch.equal(chosen, EveryRow(model, keys).best(hidden, closed))
    assert chosen.max() < 2  # the lowest of the equal rows


def test_large_index_sets_are_searched() -> None:
    model, _, _, _, keys = parts("pointer", 30, 1)
    assert isinstance(next_row(model, keys), EveryRow)
    assert isinstance(next_row(model, keys.repeat(200, 1)), NearestKey)
    published, _, _, _, tokens = parts("gpt2", 30, 1)
    assert isinstance(next_row(published, tokens), EveryRow)


@pytest.mark.parametrize("network", ["gpt2", "lstm", "pointer"])
@settings(max_examples=25, deadline=None)
@given(
    st.integers(8, 40),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(1, 7),
    st.sampled_from([1, 200, decoding.BLOCK_CELLS]),
    st.integers(0, 10**6),
)
def test_reading_one_icd_a_step_equals_reading_the_whole_sequence(
    network: str, examples: int, queries: int, repeated: int, shots: int, beams: int, block: int, seed: int
) -> None:
    """Greedy and beams, with equal examples, and rows that must not be chosen: as many as there can be, at times."""
    model, query, table, tokens, targets = parts(network, examples, queries, seed, repeated, layers=2)
    rng = np.random.default_rng(seed)
    most = examples - shots
    closed = closed_rows(
        [rng.permutation(examples)[: rng.integers(most + 1) if rng.random() < 0.8 else most] for _ in range(queries)],
        examples,
    )
    given_rows = (model, query, table, tokens)
    plain = plain_beam(*given_rows, targets, closed, shots, beams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "BLOCK_CELLS", block)
        assert torch.equal(beam(*given_rows, targets, closed.clone(), shots, beams), plain)
    fast = greedy(*given_rows, EveryRow(model, targets), closed.clone(), shots)
    assert torch.equal(fast, plain_greedy(*given_rows, targets, closed, shots))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 60), st.integers(1, 70), st.integers(1, 9), st.integers(0, 10**6))
def test_first_largest_equals_a_stable_sort(batch: int, width: int, count: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.integers(0, levels**3, (batch, width)).astype(np.float64))
    values[values == 0] = -torch.inf
    noise = torch.from_numpy(rng.normal(0, 1e-13, (batch, width)))
    expected = (values + noise).round(decimals=decoding.DECIMALS).sort(descending=True, stable=True).indices[:, :count]
    assert torch.equal(first_largest(values + noise, count), expected)


@pytest.mark.parametrize("network", ["gpt2", "lstm", "pointer"])
def test_one_beam_is_greedy(network: str) -> None:
    model, query, table, tokens, targets = parts(network, 12, 4)
    closed = closed_rows([np.array([q, 5]) for q in range(4)], 12)
    one = beam(model, query, table, tokens, targets, closed.clone(), 5, 1)
    assert torch.equal(one, greedy(model, query, table, tokens, EveryRow(model, targets), closed.clone(), 5))


@pytest.mark.parametrize("network", ["gpt2", "lstm", "pointer"])
def test_enough_beams_find_the_most_probable_sequence(network: str) -> None:
    model, query, table, tokens, targets = parts(network, 6, 3)
    shut = [{0}, {4, 2}, set()]
    closed = closed_rows([np.array(sorted(s), dtype=np.int64) for s in shut], 6)
    actual = beam(model, query, table, tokens, targets, closed, 3, 1000)
    for q in range(3):
        sequences = list(itertools.permutations([r for r in range(6) if r not in shut[q]], 3))
        best = max(sequences, key=lambda rows: log_prob(model, query, table, targets, q, rows, shut[q]))
        assert tuple(actual[q].tolist()) == best


def test_beams_do_not_depend_on_other_queries() -> None:
    model, query, table, tokens, targets = parts("pointer", 15, 6)
    closed = closed_rows([np.array([q]) for q in range(6)], 15)
    together = beam(model, query, table, tokens, targets, closed, 4, 3)
    for q in range(6):
        alone = beam(model, {m: v[[q]] for m, v in query.items()}, table, tokens, targets, closed[[q]], 4, 3)
        assert torch.equal(alone[0], together[q])
