"""Costs beside the metric: ratios, table, notes."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from icltool.results.costs import _number, cost_details, cost_notes, cost_sheet, savings
from icltool.store.evaluations import SettingResult
from tests.results.results import setting


def costed(method: str, shots: int, factor: float, stands_in: bool = False, **cost: Any) -> SettingResult:
    known = {
        "queries": 8,
        "device": "cpu",
        "prompt_tokens": 20 * factor,
        "flops": 3e9 * factor,
        "seconds": 0.5 * factor,
    }
    extra: dict[str, Any] = {"cost": {**known, **cost}, **({"intervention": {}} if stands_in else {})}
    return replace(setting(method, shots, 10.0 * factor), extra=extra)


RESULTS = [
    costed("zero-shot", 0, 1),
    costed("random", 1, 2),
    costed("random", 8, 9),
    setting("i2i", 8, 50.0),
    costed("live", 0, 1, stands_in=True),
]


def screen(table: Any, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def cells(text: str) -> list[list[str]]:
    """The words of the lines between the rule and the caption."""
    lines = text.splitlines()
    rule = next(position for position, line in enumerate(lines) if line.startswith("─"))
    caption = next(position for position, line in enumerate(lines) if line.startswith("prompt tokens"))
    return [line.split() for line in lines[rule + 1 : caption]]


def test_savings_are_against_each_setting_with_demonstrations() -> None:
    assert savings(RESULTS) == [
        {"method": "live", "to": "random", "shots": k, "seed": 0, "prompt_tokens": n, "flops": n, "seconds": n}
        for k, n in ((1, 2.0), (8, 9.0))
    ]
    assert savings(RESULTS[:-1]) == []


def test_seconds_of_two_devices_are_not_compared() -> None:
    other = costed("random", 8, 9, device="another", flops=None)
    [saving] = savings([other, RESULTS[-1]])
    assert (saving["prompt_tokens"], saving["flops"], saving["seconds"]) == (9.0, None, None)
    assert "another and cpu" in cost_details([other, RESULTS[-1]])[0]
    assert [line.split(" ")[0] for line in cost_notes([other, RESULTS[-1]])] == ["costs", "FLOPs"]


def test_the_table_has_a_row_for_each_setting_with_a_cost() -> None:
    text = screen(cost_sheet(RESULTS))
    rows = cells(text)
    assert rows[2] == ["random", "8", "180", "27", "4.5", "9", "9", "9"]
    assert [row[0] for row in rows] == ["zero-shot", "random", "random", "live"]
    assert "x: times the cost of live" in " ".join(text.split())
    assert "times" not in screen(cost_sheet(RESULTS[:-1]))


def test_no_figure_is_cut_on_a_narrow_screen() -> None:
    large = {"prompt_tokens": 2345.6, "flops": 123_456e9, "seconds": 0.012345}
    results = [costed("task-vector", 0, 1, stands_in=True), costed("live-" * 8, 32, 1, **large)]
    text = screen(cost_sheet(results), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.splitlines()[1].split() == [
        "method",
        "shots",
        "tokens",
        "GFLOPs",
        "s",
        "x",
        "tok.",
        "x",
        "FLOPs",
        "x",
        "s",
    ]
    assert cells(text)[0] == ["task-vector", "0", "20", "3", "0.5", "1", "1", "1"]
    assert cells(text)[1][1:] == ["32", "2,346", "123,456", "0.012", "117", "41,152", "0.025"]
    assert "".join(row[0] for row in cells(text)[1:]) == "live-" * 8, "long names are folded"
    usual = screen(cost_sheet([costed("function-vector", 0, 1, stands_in=True), costed("random", 32, 33.3)]), 80)
    assert [row[0] for row in cells(usual)] == ["function-vector", "random"]
    assert "…" not in screen(cost_sheet(results), 60)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (999.7, 3, "1,000"),
        (99.5, 3, "99.5"),
        (1234.5, 2, "1,234"),
        (0.0127, 2, "0.013"),
        (99.6, 2, "100"),
        (None, 2, "–"),
    ],
)
def test_figures_are_short_and_without_exponents(value: float | None, digits: int, text: str) -> None:
    assert _number(value, digits) == text


def test_seconds_of_two_calls_are_not_compared() -> None:
    results = [costed("random", 8, 9, call="one"), costed("i2i", 8, 9, call="two")]
    results.append(costed("live", 0, 1, stands_in=True, call="two"))
    assert [saving["seconds"] for saving in savings(results)] == [None, 9.0]
    assert [saving["flops"] for saving in savings(results)] == [9.0, 9.0]
    assert [row[-1] for row in cells(screen(cost_sheet(results)))] == ["–", "9", "1"]
    assert cost_notes(results) == ["seconds of random 8-shot are from another call than those of live: not compared"]
    assert cost_notes(results[1:]) == []


def test_notes_say_how_costs_were_measured() -> None:
    assert cost_details([setting("i2i", 8, 50.0)]) == cost_notes([setting("i2i", 8, 50.0)]) == []
    [line] = cost_details(RESULTS)
    assert "8 queries answered one by one" in line
    uncounted = costed("random", 1, 1, uncounted="attention")
    assert "flash_attention_2" in cost_notes([uncounted])[0]


@pytest.mark.parametrize("value", [None, 0.0])
def test_what_is_not_known_has_no_ratio(value: float | None) -> None:
    [saving] = savings([costed("random", 1, 2), costed("live", 0, 1, stands_in=True, prompt_tokens=value)])
    assert saving["prompt_tokens"] is None
    assert saving["flops"] == 2.0
