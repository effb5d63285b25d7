from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from icltool.components.learners.lever_lm.rows import (
    IGNORED,
    EvenBatches,
    Vocabulary,
    build_rows,
    split_by_query,
    training_and_validation,
)
from icltool.errors import DataError
from tests.components.learners.synthetic import make_index, make_training_set

N = 10
EOS, BOS, QUERY = N, N + 1, N + 2


def test_a_row_is_bos_query_icds_eos() -> None:
    rows = build_rows(np.array([4]), np.array([[7, 2]]), Vocabulary(N), reverse=False)
    assert rows.tokens.tolist() == [[BOS, QUERY, 7, 2, EOS]]
    assert torch.equal(rows.tokens, rows.labels)
    assert rows.queries.tolist() == [4]


def test_short_rows_are_filled_up_and_the_filling_does_not_count() -> None:
    rows = build_rows(np.array([4, 5]), np.array([[7, 2, 1], [3, -1, -1]]), Vocabulary(N), reverse=False)
    assert rows.tokens.tolist() == [[BOS, QUERY, 7, 2, 1, EOS], [BOS, QUERY, 3, EOS, EOS, EOS]]
    assert rows.labels[1].tolist() == [BOS, QUERY, 3, EOS, IGNORED, IGNORED]


def test_reverse_turns_each_row_round_within_its_own_length() -> None:
    rows = build_rows(np.array([4, 5]), np.array([[7, 2, 1], [3, 6, -1]]), Vocabulary(N), reverse=True)
    assert rows.tokens.tolist() == [[BOS, QUERY, 1, 2, 7, EOS], [BOS, QUERY, 6, 3, EOS, EOS]]


@pytest.mark.parametrize("icds", [[[-1, 2]], [[-1, -1]], [[1, N]]])
def test_impossible_rows_are_refused(icds: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="icd_rows"):
        build_rows(np.array([4]), np.array(icds), Vocabulary(N), reverse=False)


@settings(deadline=None, max_examples=40)
@given(
    ids=st.lists(st.integers(0, 10**9), min_size=2, max_size=60, unique=True),
    repeats=st.integers(1, 4),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_the_split_is_by_query_and_does_not_depend_on_order(
    ids: list[int], repeats: int, fraction: float, seed: int
) -> None:
    rows = np.repeat(np.array(ids, dtype=np.int64), repeats)
    held_out = split_by_query(rows, fraction, seed)
    assert set(held_out) < set(ids)
    assert len(held_out) == min(max(round(fraction * len(ids)), 1), len(ids) - 1)
    shuffled = np.random.default_rng(seed).permutation(rows)
    assert np.array_equal(split_by_query(shuffled, fraction, seed), held_out)


def test_a_held_out_query_stays_held_out_when_another_query_goes() -> None:
    ids = np.arange(0, 500, 5)
    with_all, without = split_by_query(ids, 0.2, 1), split_by_query(ids[1:], 0.2, 1)
    assert len(set(with_all) & set(without)) >= len(without) - 1


def test_one_query_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least two queries"):
        split_by_query(np.array([5, 5, 5]), 0.5, 0)


def test_rows_below_the_threshold_are_dropped() -> None:
    data = make_training_set(make_index(30), beams=2)
    count = int((data.scores >= 0.5).sum())
    train, validation = training_and_validation(data, Vocabulary(30), 0.5, 0.3, False, 0)
    assert len(train) + len(validation) == count < len(data.scores)
    assert not set(train.queries.tolist()) & set(validation.queries.tolist())
    with pytest.raises(DataError, match="no sequence reaches the threshold 2"):
        training_and_validation(data, Vocabulary(30), 2.0, 0.3, False, 0)


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 200), batch_size=st.integers(1, 70), multiple=st.integers(1, 4), seed=st.integers(0, 9))
def test_an_epoch_takes_every_row_once_in_even_batches(rows: int, batch_size: int, multiple: int, seed: int) -> None:
    batches = EvenBatches(rows, batch_size, multiple=multiple, shuffle=True, seed=seed)
    dealt = list(batches)
    assert len(dealt) == len(batches)
    assert sorted(torch.cat(dealt).tolist()) == list(range(rows))
    sizes = [len(batch) for batch in dealt]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(dealt) % multiple == 0 or len(dealt) == rows


def test_the_order_is_drawn_anew_each_epoch_and_again_with_the_seed() -> None:
    batches = EvenBatches(50, 50, shuffle=True, seed=1)
    first = next(iter(batches))
    batches.set_epoch(1)
    assert not torch.equal(next(iter(batches)), first)
    assert torch.equal(next(iter(EvenBatches(50, 50, shuffle=True, seed=1))), first)
    assert not torch.equal(next(iter(EvenBatches(50, 50, shuffle=True, seed=2))), first)


@given(rows=st.integers(1, 99), size=st.integers(2, 9), world=st.integers(1, 4), multiple=st.integers(1, 3))
def test_processes_share_the_batches_of_one(rows: int, size: int, world: int, multiple: int) -> None:
    settings: dict[str, Any] = {"multiple": multiple, "shuffle": True, "seed": 1}
    shares = [list(EvenBatches(rows, size, **settings, world=world, rank=rank)) for rank in range(world)]
    one = [sorted(batch.tolist()) for batch in EvenBatches(rows, size * world, **settings)]
    if rows < world:
        assert all([sorted(batch.tolist()) for batch in share] == one for share in shares)
        return
    together = [sorted(torch.cat(parts).tolist()) for parts in zip(*shares, strict=True)]
    if len(one) * world <= rows:
        assert together == one
    assert sorted(row for batch in together for row in batch) == list(range(rows))
    assert all(0 < len(batch) <= size for share in shares for batch in share)
