"""Keys and values in slots against plain stacking."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from icltool.engine.kv_pool import KeyValuePool

SHAPES = ((2, 3), (1, 4))  # heads and head width of two layers
BYTES = sum(2 * heads * width * 4 for heads, width in SHAPES)


def keys_and_values(rows: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of which no two numbers are the same."""
    generator = torch.Generator().manual_seed(rows * 31 + length)
    return [
        (
            torch.randn(rows, heads, length, width, generator=generator),
            torch.randn(rows, heads, length, width, generator=generator),
        )
        for heads, width in SHAPES
    ]


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), max_size=5), min_size=1, max_size=4))
def test_what_is_gathered_is_what_was_written(rows: list[list[tuple[int, int]]]) -> None:
    """Each row asks for tokens (row, column) of a batch of 3 spans of 5 tokens."""
    batch, pool = keys_and_values(3, 5), KeyValuePool(16 * BYTES)
    assert not pool.ready
    pool.prepare(batch)
    assert (pool.ready, pool.capacity, pool.free) == (True, 15, 15)
    slots = pool.take(15)
    places = [(row, column) for row in range(3) for column in range(5)]
    pool.write(slots, batch, [row for row, _ in places], [column for _, column in places])
    slot_of = dict(zip(places, slots, strict=True))
    result = pool.gather([[slot_of[token] for token in row] for row in rows])
    longest = max(len(row) for row in rows)
    for pair, given_pair in zip(result, batch, strict=True):
        for table, whole in zip(pair, given_pair, strict=True):
            plain = torch.zeros(len(rows), whole.shape[1], longest, whole.shape[3])
            for k, row in enumerate(rows):
                for place, (r, c) in enumerate(row, longest - len(row)):
                    plain[k, :, place] = whole[r, :, c]
            assert torch.equal(table, plain)


@given(st.integers(0, 40 * BYTES))
def test_the_pool_takes_no_more_than_its_bytes(limit: int) -> None:
    pool = KeyValuePool(limit)
    pool.prepare(keys_and_values(1, 2))
    taken = sum(t.numel() * t.element_size() for pair in pool._tables for t in pair)
    assert taken <= max(limit, BYTES)  # slot 0 is always there
    assert pool.capacity == max(0, limit // BYTES - 1)


def test_slots_come_back() -> None:
    pool = KeyValuePool(4 * BYTES)
    pool.prepare(keys_and_values(1, 1))
    assert pool.take(0) == []
    first = pool.take(2)
    assert 0 not in first
    with pytest.raises(ValueError, match="2 slots of 1"):
        pool.take(2)
    pool.give(first)
    assert sorted(pool.take(3)) == [1, 2, 3]
    pool.write([], keys_and_values(1, 1), [], [])


def test_tables_that_do_not_fit_leave_an_empty_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory ends with the third table: nothing is kept of the others, and the next try takes half as much."""
    pool, made_tables, real = KeyValuePool(32 * BYTES), [], KeyValuePool._table

    def table(self: KeyValuePool, like: torch.Tensor) -> torch.Tensor:
        made_tables.append(1)
        if len(made_tables) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, like)

    monkeypatch.setattr(KeyValuePool, "_table", table)
    with pytest.raises(torch.OutOfMemoryError):
        pool.prepare(keys_and_values(1, 1))
    assert (pool.ready, pool.free) == (False, 0)
    pool.prepare(keys_and_values(1, 1))
    assert (pool.ready, pool.capacity, pool.free) == (True, 15, 15)
