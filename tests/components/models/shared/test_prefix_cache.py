"""What adapters share that go on from keys and values, against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from icltool.components.models.shared import prefix_cache
from icltool.components.models.shared.decoder_prefix_cache import attention_masks, layers_support_prefix_cache
from icltool.components.models.shared.prefix_cache import (
    filled_cache,
    image_units,
    padded_spans,
    predicting_positions,
    span_log_probs,
)
from icltool.components.models.shared.tokens import TokenizedPrompt
from icltool.components.models.shared.transformers_cache import cache_of_prefix, own_keys_values
from icltool.contracts import Prompt, PromptTokens, Span

CPU = torch.device("cpu")


@st.composite
def made_spans(draw: st.DrawFn) -> list[Span]:
    spans = []
    for _ in range(draw(st.integers(1, 4))):
        ids = tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=9)))
        tokens = PromptTokens(ids, ids, draw(st.integers(1, len(ids))), 0, ())
        start = draw(st.integers(0, len(ids) - 1))
        spans.append(Span(tokens, start, draw(st.integers(start + 1, len(ids)))))
    return spans


@given(made_spans(), st.integers(0, 3), st.integers(1, 5))
def test_a_batch_holds_each_span_after_its_past(spans: list[Span], more: int, window: int) -> None:
    """A past may have more columns than the longest start."""
    past = max(span.start for span in spans) + more
    batch = padded_spans(spans, 0, CPU, past)
    near = batch.within(window)
    for row, span in enumerate(spans):
        length = span.end - span.start
        columns = [k - (past - span.start) for k in range(past)] + [span.start + k for k in range(batch.ids.shape[1])]
        real = [0 <= place < span.end and (k < past) == (place < span.start) for k, place in enumerate(columns)]
        assert batch.ids[row].tolist() == list(span.tokens.ids[span.start : span.end]) + [0] * (
            batch.ids.shape[1] - length
        )
        assert batch.present[row].bool().tolist() == real
        for query in range(batch.ids.shape[1]):
            place = span.start + min(query, length - 1)
            assert batch.positions[row, query] == place
            sees = [there and other <= place for there, other in zip(real, columns, strict=True)]
            assert batch.visible[row, 0, query].tolist() == sees
            close = [seen and other > place - window for seen, other in zip(sees, columns, strict=True)]
            assert near.visible[row, 0, query].tolist() == close
    added = batch.additive(torch.bfloat16)
    assert added.dtype == torch.bfloat16
    assert torch.equal(added == 0, batch.visible)
    assert added.min() >= torch.finfo(torch.bfloat16).min


@given(made_spans(), st.integers(1, 40))
def test_log_probabilities_are_those_of_the_targets(spans: list[Span], at_once: int) -> None:
    """Logits are the states themselves."""
    generator = torch.Generator().manual_seed(len(spans))
    longest = max(span.end - span.start for span in spans)
    hidden = torch.randn(len(spans), longest, 10, generator=generator)
    calls: list[int] = []

    def head(states: torch.Tensor) -> torch.Tensor:
        calls.append(len(states))
        return states

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_cache, "LOGITS_AT_ONCE", at_once)
        actual = span_log_probs(hidden, predicting_positions(spans, CPU), head, 10)
    assert actual.dtype == torch.float64
    everything = torch.log_softmax(hidden, -1)
    count = 0
    for row, span in enumerate(spans):
        following = [
            k for k in range(span.start + 1, span.end + 1) if span.tokens.target_start <= k < len(span.tokens.ids)
        ]
        plain = sum(float(everything[row, k - 1 - span.start, span.tokens.ids[k]]) for k in following)
        assert float(actual[row]) == pytest.approx(plain, abs=1e-5)
        count += len(following)
    assert sum(calls) == count
    assert all(n <= max(1, at_once // 10) for n in calls)


@pytest.mark.parametrize("columns", [0, 4])
@pytest.mark.parametrize("keep", [False, True])
def test_a_layer_attends_to_the_past_and_keeps_what_is_new(columns: int, keep: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def pairs(length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(torch.randn(2, 3, length, 5, generator=generator), torch.randn(2, 3, length, 5)) for _ in range(2)]

    past, own = pairs(4), pairs(2)
    cache = cache_of_prefix(past if columns else None, 2, columns, keep)
    assert cache.get_seq_length() == columns
    for number, (new, before) in enumerate(zip(own, past, strict=True)):
        seen = cache.update(*new, number)
        for actual, one, other in zip(seen, before, new, strict=True):
            assert torch.equal(actual, torch.cat([one, other], 2) if columns else other)
    if keep:
        states = own_keys_values(cache)
        assert all(torch.equal(a, b) for f, w in zip(states, own, strict=True) for a, b in zip(f, w, strict=True))


def test_a_cache_to_generate_from_holds_every_row_for_each_beam() -> None:
    past = [(torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)) for _ in range(2)]
    cache = filled_cache(past, 3)
    assert cache.get_seq_length() == 4
    for layer, (keys, values) in zip(cache.layers, past, strict=True):
        assert torch.equal(layer.keys, keys[[0, 0, 0, 1, 1, 1]])
        assert torch.equal(layer.values, values[[0, 0, 0, 1, 1, 1]])


def test_a_token_that_stands_for_an_image_is_the_same_only_for_the_same_image() -> None:
    tokens = TokenizedPrompt([1, 7, 2, 7, 3, 4], 5)
    actual = image_units(tokens, Prompt("", ("a.jpg", "b.jpg"), ""), 7)
    assert actual.units == (1, (7, "a.jpg"), 2, (7, "b.jpg"), 3, 4)
    assert (actual.target_start, actual.shared_end, actual.images) == (5, 3, ("a.jpg", "b.jpg"))
    assert image_units(TokenizedPrompt([1, 2, 3], 2), Prompt("", (), ""), 7).shared_end == 2


class Config:
    """What a decoder's configuration says of its layers."""

    def __init__(self, **parts: object) -> None:
        self.sliding_window = None
        self._attn_implementation = "sdpa"
        self.__dict__ |= parts


def test_masks_are_those_of_the_kinds_of_layers() -> None:
    ids = tuple(range(6))
    batch = padded_spans([Span(PromptTokens(ids, ids, 5, 0, ()), 2, 6)], 0, CPU, 2)
    whole, near = batch.additive(torch.float32), batch.within(2).additive(torch.float32)
    assert torch.equal(attention_masks(batch, Config(), torch.float32), whole)
    assert torch.equal(attention_masks(batch, Config(sliding_window=2), torch.float32), near)
    both = Config(sliding_window=2, layer_types=["sliding_attention", "full_attention"])
    masks = attention_masks(batch, both, torch.float32)
    assert torch.equal(masks["full_attention"], whole)
    assert torch.equal(masks["sliding_attention"], near)
    flash = Config(_attn_implementation="flash_attention_2")
    assert attention_masks(batch, flash, torch.float32) is batch.present


@pytest.mark.parametrize(
    "parts",
    [
        {"layer_types": ["full_attention", "linear_attention"]},
        {"layer_types": ["chunked_attention"]},
        {"layer_types": ["sliding_attention"]},
        {"rope_parameters": {"rope_type": "dynamic"}},
        {"rope_parameters": {"full_attention": {"rope_type": "longrope"}}},
        {"use_bidirectional_attention": True},
    ],
)
def test_layers_of_which_it_is_not_known_do_not_support_a_prefix_cache(parts: dict[str, object]) -> None:
    assert layers_support_prefix_cache(Config())
    assert layers_support_prefix_cache(Config(rope_parameters={"rope_type": "llama3", "factor": 8.0}, sliding_window=7))
    assert not layers_support_prefix_cache(Config(**parts))
