"""What is printed of findings that are given."""

from __future__ import annotations

import io
import json
from typing import Any

from rich.console import Console

from icltool.commands.evaluate.report import EvaluationReport, asked_for, remarks
from icltool.store.evaluations import MetricResult, SettingResult

GUARD = {"kinds": ["image"], "index": 50, "kept_away": {"image": 1.0, "group": 0.25, "any": 1.25}}


def result(method: str, shots: int, seed: int = 0, **extra: Any) -> SettingResult:
    return SettingResult(method, shots, seed, 8, {"cider": MetricResult(20.0, 18.0, 22.0)}, 1.0, extra)


def findings(copied: int, right: float | None, better: int, sd: float) -> dict[str, Any]:
    figures = {"mean": 20.0, "sd": sd, "best": 21.0 + sd, "worst": 19.0}
    return {
        "copies": {"answers": copied, "share": copied / 8, "right": right},
        "leaks": {"pairs": 16, "image": 0, "group": 0, "question": 3, "text": 1},
        "gains": {"against": {}, "metrics": {"cider": {"better": better, "worse": 1, "equal": 7 - better}}},
        "orders": {"count": 3, "each": [], "metrics": {"cider": figures}, "changed": 0.25},
    }


def screen(report: EvaluationReport) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report.table())
    return console.export_text()


def test_findings_of_several_seeds_are_averaged() -> None:
    results = [
        result("zero-shot", 0),
        result("random", 2, 0, **findings(2, 0.5, 4, 1.0)),
        result("random", 2, 1, **findings(0, None, 2, 3.0)),
        result("i2i", 2, seeds_alike=[1], **findings(8, 0.25, 6, 0.0)),
    ]
    lines = remarks(results, {"guard": GUARD})
    assert lines == [
        "answers copied from a demonstration (of these right), %:",
        "  random: 2-shot 12.5 (50)",
        "  i2i: 2-shot 100.0 (25)",
        "queries better / worse than zero-shot by cider:",
        "  random: 2-shot 3 / 1",
        "  i2i: 2-shot 6 / 1",
        "3 orders of random, 2-shot: cider 20.0, sd 2.0, 19.0 to 24.0; 25 % of the answers change",
        "3 orders of i2i, 2-shot: cider 20.0, sd 0.0, 19.0 to 21.0; 25 % of the answers change",
        "leak guard: 1.2 of 50 examples kept from a query on average (image 1.0, near-duplicates 0.2)",
        "of 48 chosen demonstrations share with their query: image 0, near-duplicates 0, question 9, text 3",
        "the same demonstrations for every seed, answered once: i2i",
    ]


def test_without_demonstrations_there_is_no_leak_guard_to_speak_of() -> None:
    live = result("live", 0, intervention={})
    assert remarks([result("zero-shot", 0), live], {"guard": GUARD}) == []
    assert "leak guard" in remarks([live, result("random", 1)], {"guard": GUARD})[0]


def test_only_what_was_asked_for_is_told() -> None:
    cost = {"queries": 8, "device": "cpu", "prompt_tokens": 9.0, "flops": 1e9, "seconds": 0.5, "call": "x"}
    found = [result("random", 2, cost=cost, seeds_alike=[1, 2], **findings(2, 0.5, 4, 1.0))]
    whole = remarks(found, {})
    assert remarks(asked_for(found, True, True, (0, 1)), {}) == whole
    [bare] = asked_for(found, False, False, (0,))
    assert set(found[0].extra) - set(bare.extra) == {"cost", "orders"}
    assert bare.extra["seeds_alike"] == []
    told = remarks([bare], {})
    missing = [line.split(" ")[0] for line in whole if line not in told]
    assert missing == ["3", "costs:", "the"], "orders, costs and seeds that are alike"
    report = EvaluationReport("x", (), results=(bare,))
    assert "GFLOPs" not in screen(report)
    assert not {"cost", "orders", "seeds alike"} & report.rows()[0].keys()


def test_nothing_found_is_not_spoken_of() -> None:
    assert remarks([result("zero-shot", 0)], {}) == []
    assert remarks([result("random", 1)], {}) == []


def test_answer_types_are_shown_where_there_are_several() -> None:
    types = {"yes/no": {"queries": 5, "cider": 30.0}, "other": {"queries": 3, "cider": 3.25}}
    one = {"other": types["other"]}
    several = EvaluationReport("x", (), results=(result("i2i", 1, by={"answer_type": types}),))
    assert "yes/no (5)" in screen(several)
    assert "other (3)" not in screen(EvaluationReport("x", (), results=(result("i2i", 1, by={"answer_type": one}),)))


def test_differences_are_shown_of_the_first_metric_and_all_are_in_the_rows() -> None:
    entry = {"shots": 1, "a": "i2i", "b": "t2t", "metric": "cider", "mean": 1.0, "low": -1.0, "high": 3.0, "p": 0.5}
    analysis = {"differences": [entry, {**entry, "metric": "other"}], "guard": GUARD}
    results = (result("i2i", 1, **findings(2, 0.5, 4, 1.0)), result("t2t", 1))
    report = EvaluationReport("a title", (), results=results, analysis=analysis)
    text = screen(report)
    assert "a title" in text
    assert "i2i - t2t" in text
    assert "+1.0 [-1.0, +3.0] p 0.500" in text
    rows = json.loads(json.dumps(report.rows()))
    assert [d["metric"] for d in rows[0]["differences"]] == ["cider", "other"]
    assert rows[1]["differences"] == []
    assert rows[0]["leaks"]["kept_away"] == GUARD["kept_away"]
    assert {"copies", "gains", "orders"} <= rows[0].keys()
