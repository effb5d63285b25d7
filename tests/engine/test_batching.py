"""The batch size: kept, found, halved when memory runs out; results are those of any other size."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings, strategies as st

from icltool.contracts import Prompt, PromptTokens, Span
from icltool.engine.batching import PADDING, SMALLEST, Batches, BatchSize, is_out_of_memory
from icltool.errors import ConfigError


class Machine:
    """Computes the length of each text; more than `limit` characters at once do not fit."""

    def __init__(self, limit: int, error: Exception | None = None) -> None:
        self.limit = limit
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.parts: list[int] = []
        self.computed: list[str] = []

    def __call__(self, part: Sequence[Prompt], size: int) -> list[int]:
        self.parts.append(len(part))
        if sum(len(p.text) for p in part) > self.limit:
            raise self.error
        self.computed += [p.text for p in part]
        return [len(p.text) for p in part]


def prompts(lengths: Sequence[int]) -> list[Prompt]:
    return [Prompt("x" * n, ()) for n in lengths]


@settings(max_examples=20, deadline=None)  # each failure frees memory, which takes its time
@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 200), st.one_of(st.just("auto"), st.integers(1, 99)))
def test_every_prompt_is_answered_once_and_in_order(lengths: list[int], limit: int, size: BatchSize) -> None:
    machine = Machine(limit)
    assert Batches(size).run(prompts(lengths), machine) == lengths
    assert sorted(map(len, machine.computed)) == sorted(lengths)


def test_a_size_that_fits_is_kept() -> None:
    machine, batches = Machine(1000), Batches(8)
    batches.run(prompts([5] * 20), machine)
    assert (machine.parts, batches.size, batches.notes) == ([8, 8, 4], 8, [])


def test_a_batch_that_does_not_fit_is_halved_and_what_was_computed_is_kept() -> None:
    machine, batches = Machine(160), Batches(64)
    batches.run(prompts([10] * 100), machine)
    assert machine.parts == [64, 32, 16, 16, 16, 16, 16, 16, 4]
    assert len(machine.computed) == 100
    assert batches.notes == ["32 prompts at once did not fit in memory: batch size now 16"]
    batches.run(prompts([10] * 32), machine)
    assert machine.parts[9:] == [16, 16], "a size that was found holds for later calls"
    batches.run(prompts([40] * 5), machine)
    assert machine.parts[11:] == [5, 2, 2, 1]
    assert batches.notes == ["5 prompts at once did not fit in memory: batch size now 2"]


def test_auto_finds_the_largest_power_of_two_by_trying_the_longest_first() -> None:
    machine, batches = Machine(10 * 37), Batches("auto")
    batches.run(prompts([1] * 100 + [10] * 200), machine)
    assert machine.parts[:6] == [4, 8, 16, 32, 64, 32]
    assert batches.size == 32
    assert [len(text) for text in machine.computed] == [10] * 200 + [1] * 100
    assert 64 not in machine.parts[6:], "a size that failed is not tried again"


def test_auto_stops_at_the_largest_size() -> None:
    machine, batches = Machine(10**9), Batches("auto", largest=16)
    batches.run(prompts([1] * 100), machine)
    assert (max(machine.parts), batches.size) == (16, 16)


def test_a_single_prompt_that_does_not_fit_is_an_error_with_ways_out() -> None:
    with pytest.raises(ConfigError, match="single prompt of 0 images and 30 characters") as caught:
        Batches(8).run(prompts([5, 30, 5]), Machine(20))
    assert "--dtype bfloat16" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 8 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory of what was said"), False),
    ],
)
def test_only_errors_of_memory_are_met_with_smaller_batches(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) is memory
    machine, batches = Machine(40, error), Batches(8)
    if memory:
        assert batches.run(prompts([10] * 8), machine) == [10] * 8
    else:
        with pytest.raises(type(error), match=str(error)):
            batches.run(prompts([10] * 8), machine)


def test_torch_really_raises_what_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_an_impossible_size_is_an_error() -> None:
    with pytest.raises(ConfigError, match="must be a positive integer, got"):
        Batches(0)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 32))
def test_spans_of_like_lengths_share_a_batch(lengths: list[int], size: int) -> None:
    """Whatever the lengths: a batch has little filling, or is a small one."""
    spans = [Span(PromptTokens(tuple(range(n + 1)), tuple(range(n + 1)), n, 0, ()), 0, n) for n in lengths]
    batches: list[list[int]] = []

    def compute(part: list[Span], batch_size: int) -> list[int]:
        batches.append([s.end - s.start for s in part])
        return [s.end for s in part]

    assert Batches(size).run(spans, compute) == lengths
    assert sorted(n for batch in batches for n in batch) == sorted(lengths)
    for batch in batches:
        assert 1 <= len(batch) <= size
        filled = sum(batch) / (len(batch) * max(batch))
        assert filled >= 1 - PADDING or len(batch) <= SMALLEST * size + 1


def test_auto_begins_each_group_alike() -> None:
    """What a group's batches are does not depend on the groups before, so a resumed run has the same."""
    machine, batches = Machine(10**9), Batches("auto", largest=16)
    parts = []
    for _ in range(2):
        batches.reset()
        machine.parts.clear()
        batches.run(prompts([1] * 60), machine)
        parts.append(list(machine.parts))
    assert parts[0] == parts[1]
    assert batches.size == 16
    fixed = Batches(8)
    fixed.reset()
    assert fixed.size == 8


def test_a_size_that_did_not_fit_is_not_tried_again() -> None:
    machine, batches = Machine(60), Batches("auto", largest=64)
    batches.run(prompts([10] * 40), machine)
    first = batches.notes
    batches.reset()
    machine.parts.clear()
    batches.run(prompts([10] * 40), machine)
    assert batches.notes == first
    assert max(machine.parts) == 4  # eight were too many
