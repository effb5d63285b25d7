"""The figure of the metric against cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icltool.errors import StoreError
from icltool.results.cost_figure import cost_figure
from icltool.results.figures import COLOURS
from tests.results.results import setting
from tests.results.test_costs import RESULTS, costed


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_each_method_with_a_cost_is_drawn(tmp_path: Path) -> None:
    colours = pixels(cost_figure(RESULTS, tmp_path / "new" / "cost.png", "a title"))
    there = []
    for colour in COLOURS[:4]:
        expected = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        there.append(bool((np.abs(colours - expected).max(axis=2) <= 2).sum() > 20))
    assert there == [True, True, True, False], "i2i has no cost"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["cost.png"]


def test_marks_differ_without_colour(tmp_path: Path) -> None:
    """In grey, a star is no circle: two methods of one colour would still be two images."""
    one = pixels(cost_figure([costed("live", 0, 1)], tmp_path / "a.png")).mean(axis=2)
    star = pixels(cost_figure([costed("live", 0, 1, stands_in=True)], tmp_path / "b.png")).mean(axis=2)
    assert (one != star).sum() > 20


def test_seconds_stand_in_where_flops_are_not_known(tmp_path: Path) -> None:
    without = [costed("random", k, k, flops=None) for k in (1, 2)]
    assert cost_figure(without, tmp_path / "a.png").is_file()
    assert (pixels(tmp_path / "a.png") != pixels(cost_figure(RESULTS, tmp_path / "b.png"))).any()


def test_nothing_to_draw_and_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no costs"):
        cost_figure([setting("i2i", 8, 50.0)], tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cost\.png"):
        cost_figure(RESULTS, tmp_path / "file" / "cost.png")
