"""Which examples and demonstrations are drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.learners.interventions.draws import Draws, held_out
from icltool.components.learners.interventions.order import EpochBatches
from icltool.contracts import Example
from icltool.errors import DataError
from tests.components.learners.interventions.sets import intervention_set


def example(number: int, image: int, group: str = "") -> Example:
    return Example(number, f"/{image}.png", image, f"t {number}", f"l {number}", (f"l {number}",), group=group)


def make(images: list[int], groups: list[str] | None = None) -> Any:
    groups = groups or [""] * len(images)
    examples = [example(100 + 7 * i, image, group) for i, (image, group) in enumerate(zip(images, groups, strict=True))]
    return intervention_set(SimpleNamespace(name="none"), examples, cached=False)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=24),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(0, 2),
)
def test_demonstrations_are_distinct_and_none_shares_the_query_s_image(
    images: list[int], shots: int, draw: int, seed: int
) -> None:
    draws = Draws(make(images), len(images), seed)
    own = [images[row] for row in draws.rows]
    for position in range(len(draws)):
        left = [p for p in range(len(draws)) if own[p] != own[position]]
        if len(left) < shots:
            with pytest.raises(DataError, match="may be used for example"):
                draws.demonstrations(position, shots, draw)
            continue
        actual = draws.demonstrations(position, shots, draw)
        assert len(set(actual.tolist())) == shots
        assert set(actual.tolist()) <= set(left)
        assert np.array_equal(actual, draws.demonstrations(position, shots, draw))


def test_near_duplicates_are_no_demonstrations_of_one_another() -> None:
    draws = Draws(make([1, 2, 3, 4], ["a", "a", "", ""]), 4, 0)
    place = {int(row): p for p, row in enumerate(draws.rows)}
    for draw in range(20):
        assert place[1] not in draws.demonstrations(place[0], 2, draw)


def test_every_example_that_may_stand_there_is_drawn_alike_often() -> None:
    draws = Draws(make([1, 1, 2, 3, 4, 5]), 6, 0)
    place = {int(row): p for p, row in enumerate(draws.rows)}
    counts = np.zeros(6)
    for draw in range(3000):
        counts[draws.demonstrations(place[0], 2, draw)] += 1
    assert counts[place[0]] == counts[place[1]] == 0
    others = counts[[place[k] for k in (2, 3, 4, 5)]]
    assert others.sum() == 6000
    assert abs(others - 1500).max() < 150  # five standard deviations


def test_draws_do_not_depend_on_how_many_examples_were_asked_for() -> None:
    data = make(list(range(30)))
    few, many = Draws(data, 10, 3), Draws(data, 20, 3)
    assert many.rows[:10].tolist() == few.rows.tolist()
    assert Draws(data, 10, 4).rows.tolist() != few.rows.tolist()
    assert len(Draws(data, 99, 3)) == 30


def test_what_is_held_out_is_apart() -> None:
    data = make(list(range(30)))
    dev = held_out(data, 12, 0)
    rest = Draws(data, 99, 0, apart=dev.rows)
    assert len(dev) == 12
    assert sorted([*dev.rows.tolist(), *rest.rows.tolist()]) == list(range(30))
    assert len(held_out(data, 99, 0)) == 15


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5), st.booleans())
def test_batches_show_every_example_once_in_every_epoch(
    count: int, size: int, world: int, seed: int, keeps: bool
) -> None:
    """Processes have as many batches each; what they read that is not theirs does not count."""
    shares = [EpochBatches(count, size, seed, world, rank, keeps) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    orders: list[list[list[int]]] = []
    for epoch in (0, 1):
        for share in shares:
            share.set_epoch(epoch)
        batches = [[batch[: share.own(i)] for i, batch in enumerate(share)] for share in shares]
        assert all(len(own) == len(share) for own, share in zip(batches, shares, strict=True))
        assert all(batch for share in shares for batch in share)
        orders.append([[p for batch in own for p in batch] for own in batches])
        assert sorted(p for part in orders[-1] for p in part) == list(range(count))
        if not keeps:
            one = EpochBatches(count, size * world, seed)
            one.set_epoch(epoch)
            whole = [sorted(p for own in parts for p in own) for parts in zip(*batches, strict=True)]
            assert whole == [sorted(batch) for batch in one]
    if keeps:
        for first, second in zip(*orders, strict=True):
            assert sorted(first) == sorted(second)  # what a process keeps of its examples serves it again


def test_epochs_have_other_orders() -> None:
    share = EpochBatches(40, 8, 0)
    first = list(share)
    share.set_epoch(1)
    assert list(share) != first
