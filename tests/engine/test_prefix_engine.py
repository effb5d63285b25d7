"""Prompts computed as a tree give what whole prompts give, whatever memory there is; each shared token once."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from icltool.contracts import GenerationOptions, Prompt
from icltool.engine import batching, kv_pool, prefix_engine
from icltool.engine.batching import Batches
from icltool.engine.prefix_engine import PrefixEngine
from icltool.engine.sharing import shared_segments
from tests.engine.hashes import LAYERS, ForgetfulMemory, HashedModel, JoinedModel

OPTIONS = GenerationOptions(4, 1)
TOKEN = 8 * LAYERS  # bytes of one token's keys and values
AMPLE = 1 << 16


@st.composite
def made_prompts(draw: st.DrawFn) -> Prompt:
    """Few different beginnings, so that prompts have much in common."""
    parts = draw(st.lists(st.sampled_from(["#a", "#b", "ab", "#qr", "a"]), max_size=4))
    text = "<" + "".join(parts) + "#q"
    images = tuple(draw(st.sampled_from("xy")) for _ in range(text.count("#")))
    return Prompt(text, images, draw(st.sampled_from(["r", "red", "ab"])))


CALLS = st.lists(st.tuples(st.lists(made_prompts(), max_size=8), st.booleans(), st.booleans()), min_size=1, max_size=4)
SIZES = st.one_of(st.integers(1, 9), st.just("auto"))


@pytest.fixture
def sharing_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of a few tokens would share nothing otherwise."""
    monkeypatch.setattr(prefix_engine, "shared_segments", partial(shared_segments, worth=1))


def check(engine: PrefixEngine, plain: HashedModel, calls: list[tuple[list[Prompt], bool, bool]]) -> None:
    for prompts, keep, answers in calls:
        if answers:
            assert engine.answers(prompts, OPTIONS, None) == plain.generate(prompts)
        else:
            assert engine.scores(prompts, None, keep) == plain.score(prompts)
        assert engine._pool.free + len(engine._tree) == engine._pool.capacity * engine._pool.ready, "slots are lost"


@settings(deadline=None, max_examples=50)
@given(CALLS, SIZES, st.integers(0, 60), st.integers(1, 6), st.booleans())
def test_any_memory_and_batch_size_give_plain_scores(
    calls: Any, size: Any, slots: int, worth: int, joined: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_engine, "shared_segments", partial(shared_segments, worth=worth))
        model = JoinedModel() if joined else HashedModel()
        check(PrefixEngine(model, Batches(size), slots * TOKEN), model, calls)


@settings(deadline=None, max_examples=50)
@given(CALLS, st.frozensets(st.integers(1, 20)), st.frozensets(st.integers(1, 4)), st.integers(0, 60))
def test_memory_that_runs_out_leaves_the_engine_right(
    calls: Any, failing: frozenset[int], no_tables: frozenset[int], slots: int
) -> None:
    """In forward passes now and then, when the pool's tables are made, and when several prompts' keys are written."""
    tables, real, written = [], kv_pool.KeyValuePool._table, kv_pool.KeyValuePool.write

    def table(self: kv_pool.KeyValuePool, like: torch.Tensor) -> torch.Tensor:
        tables.append(1)
        if len(tables) in no_tables:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, like)

    def write(self: kv_pool.KeyValuePool, slots: Any, keys_values: Any, rows: Any, columns: Any) -> None:
        if len(slots) in failing and len(set(rows)) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        written(self, slots, keys_values, rows, columns)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_engine, "shared_segments", partial(shared_segments, worth=1))
        patch.setattr(kv_pool.KeyValuePool, "_table", table)
        patch.setattr(kv_pool.KeyValuePool, "write", write)
        for module in (prefix_engine, batching):
            patch.setattr(module, "release_memory", lambda: None)  # collecting garbage takes most of the time
        model = ForgetfulMemory(failing)
        check(PrefixEngine(model, Batches(8), slots * TOKEN), model, calls)


@settings(deadline=None, max_examples=50)
@given(st.lists(made_prompts(), min_size=1, max_size=10), SIZES)
def test_every_shared_token_is_computed_once(prompts: list[Prompt], size: Any) -> None:
    """Nodes of the trie of what stands before the targets, and each prompt's target: nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_engine, "shared_segments", partial(shared_segments, worth=1))
        engine = PrefixEngine(HashedModel(), Batches(size), AMPLE)
        engine.scores(prompts, None, False)
    tokens = HashedModel().prompt_tokens(prompts, True)
    nodes = {t.units[: k + 1] for t in tokens for k in range(t.target_start - 1)}
    targets = sum(len(t.ids) - t.target_start for t in tokens)
    assert engine.counts.computed == len(nodes) + targets
    assert engine.counts.scored == sum(len(t.ids) for t in tokens)
    assert engine.counts.padded >= engine.counts.computed


def test_what_stands_before_the_query_is_kept_for_later(sharing_everything: None) -> None:
    model = HashedModel()
    engine = PrefixEngine(model, Batches(8), AMPLE)
    engine.scores([Prompt("<#a" * 5 + "#q", ("x",) * 6, "r")], None, True)
    computed = engine.counts.computed
    longer = Prompt("<#a" * 5 + "<#b" + "#q", ("x",) * 7, "r")
    assert engine.scores([longer], None, True) == model.score([longer])
    assert engine.counts.computed - computed == len("<#b#q")  # the target's last token is not read
    engine.forget()
    assert engine.scores([longer], None, True) == model.score([longer])
    assert model.batches[-1] == [(0, len(longer.text))]


def test_the_oldest_makes_room(sharing_everything: None) -> None:
    model = HashedModel()
    engine = PrefixEngine(model, Batches(8), 17 * TOKEN)  # 16 tokens
    old, new = (Prompt(f"<{c * 11}#q", ("x",), "r") for c in "ab")
    for prompt in (old, new, new):
        engine.scores([prompt], None, True)
    assert [batch[0][0] for batch in model.batches] == [0, 1, 12]
    engine.scores([old], None, True)
    assert model.batches[-1][0][0] < 12


def test_a_block_of_which_a_part_made_room_is_computed_again(sharing_everything: None) -> None:
    model = JoinedModel()
    engine = PrefixEngine(model, Batches(8), 7 * TOKEN)  # 6 tokens
    old, new = Prompt("<aa##q", ("x", "q"), "r"), Prompt("<b#q", ("q",), "r")
    for prompt in (old, new, old):
        assert engine.scores([prompt], None, True) == model.score([prompt])
    assert [batch[0][0] for batch in model.batches] == [0, 1, 3]
    assert len(engine._tree) == 6


def test_other_images_are_other_tokens(sharing_everything: None) -> None:
    model = HashedModel()
    engine = PrefixEngine(model, Batches(8), AMPLE)
    prompts = [Prompt("<#a#a#q", images, "r") for images in (("x", "x", "q"), ("x", "y", "q"), ("y", "x", "q"))]
    assert engine.scores(prompts, None, True) == model.score(prompts)
    assert len({s.log_prob for s in model.score(prompts)}) == 3


def test_a_target_that_is_stored_as_the_text_of_another_prompt_is_scored_all_the_same() -> None:
    model = HashedModel()
    engine = PrefixEngine(model, Batches(8), AMPLE)
    for prompt in (Prompt("<#qred#q", ("x", "x"), "r"), Prompt("<#q", ("x",), "red")):
        assert engine.scores([prompt], None, True) == model.score([prompt])


def test_slots_that_could_not_be_written_are_free_again(
    sharing_everything: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, failed, real = HashedModel(), [], kv_pool.KeyValuePool.write

    def write(self: kv_pool.KeyValuePool, *what: Any) -> None:
        if not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, *what)

    monkeypatch.setattr(kv_pool.KeyValuePool, "write", write)
    engine = PrefixEngine(model, Batches(8), AMPLE)
    prompts = [Prompt(f"<{c}#q", ("x",), "r") for c in "abab"]
    check(engine, model, [(prompts, True, False), (prompts, True, True)])
    assert failed


def test_no_prompts_are_no_work() -> None:
    engine = PrefixEngine(HashedModel(), Batches(8), AMPLE)
    assert engine.scores([], None, True) == []
    assert engine.answers([], OPTIONS, None) == []
