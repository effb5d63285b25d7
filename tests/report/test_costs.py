"""Costs beside the metric: ratios, table, remarks."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from icltool.report.costs import cost_remarks, cost_table, savings
from icltool.store.evaluations import SettingResult
from tests.report.results import setting


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


def screen(table: Any) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_savings_are_against_each_setting_with_demonstrations() -> None:
    assert savings(RESULTS) == [
        {"method": "live", "to": "random", "shots": k, "seed": 0, "prompt_tokens": n, "flops": n, "seconds": n}
        for k, n in ((1, 2.0), (8, 9.0))
    ]
    assert savings(RESULTS[:-1]) == []


def test_seconds_of_two_devices_are_not_compared() -> None:
    other = costed("random", 8, 9, device="another", flops=None)
    [found] = savings([other, RESULTS[-1]])
    assert (found["prompt_tokens"], found["flops"], found["seconds"]) == (9.0, None, None)
    lines = cost_remarks([other, RESULTS[-1]])
    assert "another and cpu" in lines[0]
    assert [line.split(" ")[0] for line in lines[1:]] == ["costs", "FLOPs"]


def test_the_table_has_a_row_for_each_setting_with_a_cost() -> None:
    text = screen(cost_table(RESULTS, "cider"))
    rows = [line.split("│") for line in text.splitlines() if line.startswith("│")]
    found = [[cell.strip() for cell in row[1:-1]] for row in rows]
    assert found[2] == ["random", "8", "90.0 [87.8, 92.2]", "180", "27", "4.5", "9", "9", "9"]
    assert [row[0] for row in found] == ["zero-shot", "random", "random", "live"]
    assert "what live takes" in text
    assert "takes" not in screen(cost_table(RESULTS[:-1], "cider"))


def test_remarks_say_what_was_measured() -> None:
    assert cost_remarks([setting("i2i", 8, 50.0)]) == []
    [line] = cost_remarks(RESULTS)
    assert "8 queries answered one by one" in line
    uncounted = costed("random", 1, 1, uncounted="attention")
    assert "flash_attention_2" in cost_remarks([uncounted])[1]


@pytest.mark.parametrize("value", [None, 0.0])
def test_what_is_not_known_has_no_ratio(value: float | None) -> None:
    [found] = savings([costed("random", 1, 2), costed("live", 0, 1, stands_in=True, prompt_tokens=value)])
    assert found["prompt_tokens"] is None
    assert found["flops"] == 2.0
