"""Which examples a captioner's best weights are chosen by, where a data set has no split for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from icltool.commands.train.fine_tuning import MOST, SHARE, Part, held_out_rows
from icltool.contracts import NO_IMAGE, Example
from icltool.errors import DataError


class Records:
    """The columns of prepared records that a draw looks at."""

    def __init__(self, groups: list[int], image_ids: list[int], more: list[list[int]] | None = None) -> None:
        self.groups, self.image_ids = np.array(groups), np.array(image_ids)
        self.more_image_ids = None if more is None else np.array(more)

    def rows(self, rows: Any) -> list[Example]:
        return [Example(int(r), "", int(r), "", "a", ("a",)) for r in rows]


@given(
    st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 12)), min_size=2, max_size=60),
    st.integers(0, 5),
)
def test_images_and_near_duplicates_stay_on_one_side(rows: list[tuple[int, int]], seed: int) -> None:
    units = {("group", g) if g >= 0 else ("image", i) for g, i in rows}
    records: Any = Records([g for g, _ in rows], [i for _, i in rows])
    if len(units) < 2:
        with pytest.raises(DataError, match="two images"):
            held_out_rows(records, seed)
        return
    training, held = held_out_rows(records, seed)
    assert sorted([*training, *held]) == list(range(len(rows)))
    assert len(training)
    assert len(held)
    sides = [
        {("group", rows[r][0]) if rows[r][0] >= 0 else ("image", rows[r][1]) for r in side} for side in (training, held)
    ]
    assert not sides[0] & sides[1]


def test_examples_that_share_any_image_stay_on_one_side() -> None:
    """A chain 0-1-2 by further images, and pairs; 2 and 3 are near-duplicates."""
    more = [[10, NO_IMAGE], [11, 10], [11, NO_IMAGE], [NO_IMAGE, NO_IMAGE], [20, NO_IMAGE], [4, NO_IMAGE]]
    records: Any = Records([-1, -1, 7, 7, -1, -1], [0, 1, 2, 3, 4, 5], more)
    for seed in range(8):
        sides = [set(side.tolist()) for side in held_out_rows(records, seed)]
        assert {frozenset(side) for side in sides} == {frozenset({0, 1, 2, 3}), frozenset({4, 5})}


def test_a_twentieth_is_held_out_and_another_seed_holds_out_others() -> None:
    records: Any = Records([-1] * 400, list(range(400)))
    training, held = held_out_rows(records, 0)
    assert len(held) == round(SHARE * 400) < MOST
    assert held.tolist() == held_out_rows(records, 0)[1].tolist() != held_out_rows(records, 1)[1].tolist()
    part = Part(records, held)
    assert len(part) == len(held)
    assert [e.id for e in part.rows([1, 0])] == [held[1], held[0]]
    assert len(training) == 380


def test_a_part_of_a_prepared_data_set(workspace: Path) -> None:
    from icltool.store.records import open_dataset

    records = open_dataset(workspace / "datasets" / "shapes" / "caption").split("train")
    training, held = held_out_rows(records, 0)
    groups = [{e.group for e in Part(records, rows).rows(range(len(rows)))} for rows in (training, held)]  # type: ignore[arg-type]
    assert groups[0].isdisjoint(groups[1])
