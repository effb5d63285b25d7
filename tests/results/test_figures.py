"""The figure: a PNG that shows every method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from icltool.errors import StoreError
from icltool.results import figures
from icltool.results.figures import draw_spread, result_figure
from icltool.store.evaluations import MetricResult, SettingResult
from tests.results.results import grid_of_results, setting


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def _has(pixels: np.ndarray, colour: str) -> bool:
    expected = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(pixels.astype(int) - expected).max(axis=2) <= 2).sum() > 20)


def test_every_method_is_drawn_in_its_colour(tmp_path: Path) -> None:
    path = result_figure(grid_of_results(), tmp_path / "new" / "figure.png", "shapes, caption")
    pixels = _pixels(path)
    assert pixels.shape[1] >= 900
    assert [_has(pixels, colour) for colour in figures.COLOURS[:4]] == [True, True, True, False]
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"], "no temporary file stays"


def test_more_methods_than_colours_and_several_metrics(tmp_path: Path) -> None:
    both = {"cider": MetricResult(40, 38, 43), "word-accuracy": MetricResult(70, 60, 75)}
    results = [SettingResult(f"method-{i}", k, 0, 10, both) for i in range(9) for k in (1, 2)]
    wide = _pixels(result_figure(results, tmp_path / "two.png"))
    narrow = _pixels(result_figure(grid_of_results(), tmp_path / "one.png"))
    assert wide.shape[1] > 1.5 * narrow.shape[1]


def test_same_results_same_image(tmp_path: Path) -> None:
    first = result_figure(grid_of_results(), tmp_path / "a.png").read_bytes()
    assert result_figure(grid_of_results(), tmp_path / "b.png").read_bytes() == first
    other = result_figure([setting("i2i", 1, 3.0)], tmp_path / "c.png").read_bytes()
    assert other != first


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results"):
        result_figure([], tmp_path / "a.png")


def test_unwritable_path_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"figure\.png"):
        result_figure(grid_of_results(), tmp_path / "file" / "figure.png")


@pytest.mark.parametrize(("methods", "bands"), [(3, 3), (4, 0)])
def test_many_intervals_are_bars_beside_one_another(methods: int, bands: int) -> None:
    figure = Figure()
    axes = figure.subplots()
    for number in range(methods):
        draw_spread(axes, [1, 2, 4], [10.0, 20.0, 30.0], [20.0, 30.0, 90.0], "#000000", number, methods)
    kinds = [type(drawn).__name__ for drawn in axes.collections]
    assert sum(kind in {"FillBetweenPolyCollection", "PolyCollection"} for kind in kinds) == bands
    assert kinds.count("LineCollection") == methods - bands
    low, high = axes.get_ylim()
    assert low <= 10
    assert high >= 90
    places = {drawn.get_transform().transform((2.0, 25.0))[0] for drawn in axes.collections if bands == 0}
    assert len(places) == methods - bands, "each stands a little beside the others"
