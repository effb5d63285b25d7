"""Axes of charts, and where marks stand between them."""

from __future__ import annotations

import itertools
import math
import re
from importlib.resources import files

import pytest

from icltool.commands.report.page.charts import Axis, cost_chart, shots_chart
from icltool.commands.report.page.content import Shown
from icltool.commands.report.page.render import render, templates
from icltool.results.intervals import Interval
from tests.commands.report.page import pages
from tests.commands.report.page.markup import Element, parsed


def texts(axis: Axis) -> list[str]:
    return [text for _, text in axis.ticks]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((0, 10), ["0.0", "2.5", "5.0", "7.5", "10.0"]),
        ((40.2, 44.9), ["40", "42", "44"]),
        ((-0.3, 0.4), ["−0.2", "0.0", "0.2", "0.4"]),
        ((0, 12_000), ["0", "5,000", "10,000"]),
        ((0, 2.5e-7), ["0", "1e−07", "2e−07"]),
    ],
)
def test_ticks_are_round(values: tuple[float, float], ticks: list[str]) -> None:
    axis = Axis("x", values, (0, 100))
    assert texts(axis) == ticks
    assert all(0 <= axis(value) <= 100 for value, _ in axis.ticks)


@pytest.mark.parametrize("same", [0.0, 37.5, -1e-9])
def test_one_value_alone_stands_in_the_middle(same: float) -> None:
    axis = Axis("x", [same, same], (0, 100))
    assert axis(same) == 50
    assert axis.ticks


def test_logarithmic_ticks_are_decades_and_their_parts() -> None:
    assert texts(Axis("x", [20, 300], (0, 100), scale=math.log10)) == ["20", "50", "100", "200"]
    assert texts(Axis("x", [1, 20_000], (0, 100), scale=math.log10)) == ["1", "10", "100", "1,000", "10,000"]
    narrow = Axis("x", [31, 34], (0, 100), scale=math.log10)
    assert len(narrow.ticks) > 1, "round numbers where no two decades' parts are"
    assert all(0 <= narrow(value) <= 100 for value, _ in narrow.ticks)


def test_a_long_label_is_cut_to_one_line() -> None:
    assert Axis("a\nb\x07 c" + "d" * 99, [0, 1], (0, 1)).label == "a b c" + "d" * 42 + "…"


def setting(method: str, shots: int, mean: float, low: float, high: float, **cost: float) -> Shown:
    return Shown(0, method, shots, 0, 5, {"cider": Interval(mean, low, high)}, cost=cost)


def test_marks_stand_where_their_figures_are() -> None:
    settings = [setting("zero", 0, 10, 5, 15), *(setting("i2i", k, 20 + k, 18, math.nan) for k in (16, 2, 1))]
    chart = shots_chart(settings, "cider")
    assert chart is not None
    zero, i2i = chart.series
    assert [(m.x, m.y, m.low, m.high) for m in i2i.marks] == [(1, 21, 18, 21), (2, 22, 18, 22), (16, 36, 18, 36)]
    assert (zero.number, i2i.number) == (0, 1)
    assert texts(chart.x) == ["0", "1", "2", "16"]
    places = [chart.x(k) for k in (0, 1, 2, 16)]
    steps = [b - a for a, b in itertools.pairwise(places)]
    assert steps[2] == pytest.approx(3 * steps[1], abs=0.3), "logarithmic from 1 on"
    assert chart.y(5) > chart.y(36), "upwards"
    assert chart.banded
    assert shots_chart(settings, "bleu") is None


def test_costs_that_are_unknown_are_left_out() -> None:
    settings = [
        setting("a", k, 10 + k, 9, 30, FLOP=cost) for k, cost in ((1, 0.0), (2, 50.0), (4, math.inf), (8, 20.0))
    ]
    chart = cost_chart(settings, "cider", "FLOP")
    assert chart is not None
    assert [(m.x, m.note) for m in chart.series[0].marks] == [(50.0, "2"), (20.0, "8")]
    assert cost_chart(settings, "cider", "seconds") is None


@pytest.fixture(scope="module")
def many() -> Element:
    return parsed(render(pages.evaluations(6, 9, (0, 1, 2, 4, 8, 16), 20)))


def test_many_lines_have_bars_and_looks_of_their_own(many: Element) -> None:
    plot = many.all("svg", class_="plot")[0]
    assert not plot.all("path", opacity="0.15"), "no bands over one another"
    looks = {
        (e.attributes["stroke"], e.attributes["stroke-dasharray"])
        for e in plot.all("path")
        if e.attributes.get("stroke-width") == "1.8"
    }
    assert len(looks) == 8
    swatches = [tuple(p.attributes["d"] for p in e.all("path")) for e in many.all("svg", class_="swatch")[:9]]
    assert len(set(swatches)) == 9


def test_nothing_is_drawn_beside_the_drawing(many: Element) -> None:
    for plot in many.all("svg", class_="plot"):
        _, _, width, height = map(float, plot.attributes["viewbox"].split())
        for element in plot.all("path"):
            if element.attributes.get("transform"):
                x, y = map(float, re.findall(r"[-.\d]+", element.attributes["transform"]))
            else:
                x, y = map(float, re.findall(r"-?[.\d]+", element.attributes["d"])[:2])
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_templates_escape_all_but_the_page_s_own_files() -> None:
    assert templates().autoescape is True
    sources = {
        one.name: one.read_text() for one in files("icltool.commands.report.page").joinpath("templates").iterdir()
    }
    assert len(sources) >= 5
    unescaped = [match for text in sources.values() for match in re.findall(r"\{\{([^}]*?)\|\s*safe\b", text)]
    assert sorted(name.strip() for name in unescaped) == ["first", "script", "style"]
    assert not any("autoescape" in text for text in sources.values())
