"""Queries held out by image."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from icltool.components.datasets.held_out import held_out, share_of
from icltool.contracts import Example
from icltool.errors import ConfigError


def example(identifier: int, image_id: int, group: str) -> Example:
    return Example(identifier, "", image_id, "t", "l", ("l",), group=group)


images = st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["", "", "g", "h"])), min_size=2, max_size=60)


@given(images, st.floats(0.01, 0.99), st.integers(0, 5))
def test_no_image_and_no_group_stands_on_both_sides(drawn: list[tuple[int, str]], share: float, seed: int) -> None:
    group_of = dict(drawn)
    examples = [example(i, image, group_of[image]) for i, (image, _) in enumerate(drawn)]
    units = {e.group or e.image_id for e in examples}
    if len(units) < 2:
        return
    train, validation = held_out(examples, share, seed, "t.csv")
    assert sorted(train + validation, key=lambda e: e.id) == examples
    assert [e.id for e in train] == sorted(e.id for e in train)
    sides = [{e.group or e.image_id for e in side} for side in (train, validation)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == min(max(1, round(share * len(units))), len(units) - 1)
    assert held_out(list(reversed(examples)), share, seed, "t.csv")[1] == list(reversed(validation))


@pytest.mark.parametrize("wrong", [0, 1, 1.0, -0.5, 3, True, "1.5"])
def test_shares_outside_zero_and_one(wrong: float | str) -> None:
    with pytest.raises(ConfigError, match="validation is"):
        share_of(wrong)


def test_names_of_splits_are_no_shares() -> None:
    assert share_of("test") is None
    assert share_of("0.2") == 0.2
