"""What an evaluation prints of its findings."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from icltool.cli.output import show
from icltool.commands.evaluate.report import EvaluationReport, details, notes, of_the_call
from icltool.store.evaluations import MetricResult, SettingResult

GUARD = {"kinds": ["image"], "index": 50, "kept_away": {"image": 1.0, "group": 0.25, "any": 1.25}}

GAIN = {"mean": 3.0, "low": 1.0, "high": 6.0, "p": 0.01}


def result(method: str, shots: int, seed: int = 0, **extra: Any) -> SettingResult:
    return SettingResult(method, shots, seed, 8, {"cider": MetricResult(20.0, 18.0, 22.0)}, 1.0, extra)


def findings(copied: int, right: float | None, better: int, sd: float) -> dict[str, Any]:
    figures = {"mean": 20.0, "sd": sd, "best": 21.0 + sd, "worst": 19.0}
    return {
        "copies": {"answers": copied, "share": copied / 8, "right": right},
        "leaks": {"pairs": 16, "image": 0, "group": 0, "question": 3, "text": 1},
        "gains": {"against": {}, "metrics": {"cider": {"better": better, "worse": 1, "equal": 7 - better, **GAIN}}},
        "orders": {"count": 3, "each": [], "metrics": {"cider": figures}, "changed": 0.25},
    }


def screen(report: EvaluationReport, verbose: bool = False) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report.table(verbose))
    return console.export_text()


def test_findings_of_several_seeds_are_averaged() -> None:
    results = [
        result("zero-shot", 0),
        result("random", 2, 0, **findings(2, 0.5, 4, 1.0)),
        result("random", 2, 1, **findings(0, None, 2, 3.0)),
        result("i2i", 2, seeds_alike=[1], **findings(8, 0.25, 6, 0.0)),
    ]
    assert notes(results, {"guard": GUARD}) == [
        "answers copied from a demonstration: random 12 %, i2i 100 %",
        "order of the demonstrations: cider 19.0 to 24.0 for random, 2-shot (largest difference of all settings)",
        "of 48 demonstrations, these match their query: question 9, text 3 (--leak-guard excludes them)",
        "the same demonstrations for every seed, answered once: i2i",
    ]
    assert details(results, {"guard": GUARD}) == [
        "answers copied from a demonstration (of these right), %:",
        "  random: 2-shot 12.5 (50)",
        "  i2i: 2-shot 100.0 (25)",
        "queries better / worse than zero-shot by cider:",
        "  random: 2-shot 3 / 1",
        "  i2i: 2-shot 6 / 1",
        "cider over orders of the demonstrations:",
        "  random: 2-shot 20.0 (sd 2.0, 19.0 to 24.0, 3 orders, 25 % of the answers change)",
        "  i2i: 2-shot 20.0 (sd 0.0, 19.0 to 21.0, 3 orders, 25 % of the answers change)",
        "leak guard: 1.2 of 50 examples kept from a query on average (image 1.0, near-duplicates 0.2)",
        "of 48 demonstrations, these match their query: image 0, near-duplicates 0, question 9, text 3",
    ]


def test_without_demonstrations_there_is_no_leak_guard_to_speak_of() -> None:
    live = result("live", 0, intervention={})
    assert details([result("zero-shot", 0), live], {"guard": GUARD}) == []
    assert "leak guard" in details([live, result("random", 1)], {"guard": GUARD})[0]


def test_only_what_the_call_requested_is_printed() -> None:
    cost = {"queries": 8, "device": "cpu", "prompt_tokens": 9.0, "flops": 1e9, "seconds": 0.5, "call": "x"}
    results = [result("random", 2, cost=cost, seeds_alike=[1, 2], **findings(2, 0.5, 4, 1.0))]

    def printed(results: list[SettingResult]) -> list[str]:
        return [*notes(results, {}), *details(results, {})]

    whole = printed(results)
    assert printed(of_the_call(results, True, True, (0, 1))) == whole
    [bare] = of_the_call(results, False, False, (0,))
    assert set(results[0].extra) - set(bare.extra) == {"cost", "orders"}
    assert bare.extra["seeds_alike"] == []
    missing = [line.split(" ")[0] for line in whole if line not in printed([bare])]
    assert missing == ["order", "the", "cider", "", "costs:"], "orders, seeds that are alike, and costs"
    report = EvaluationReport("x", (), results=(bare,))
    assert "GFLOPs" not in screen(report)
    assert not {"cost", "orders", "seeds alike"} & report.rows()[0].keys()


def test_nothing_found_is_not_spoken_of() -> None:
    assert notes([result("zero-shot", 0)], {}) == details([result("zero-shot", 0)], {}) == []
    assert notes([result("random", 1)], {}) == details([result("random", 1)], {}) == []


def test_answer_types_are_shown_where_there_are_several() -> None:
    types = {"yes/no": {"queries": 5, "cider": 30.0}, "other": {"queries": 3, "cider": 3.25}}
    one = {"other": types["other"]}
    several = EvaluationReport("x", (), results=(result("i2i", 1, by={"answer_type": types}),))
    assert "yes/no (5)" in screen(several, verbose=True)
    assert "yes/no (5)" not in screen(several)
    alone = EvaluationReport("x", (), results=(result("i2i", 1, by={"answer_type": one}),))
    assert "other (3)" not in screen(alone, verbose=True)


def test_differences_of_the_first_metric_are_printed_and_all_are_in_the_rows() -> None:
    entry = {"shots": 1, "a": "i2i", "b": "t2t", "metric": "cider", "mean": 1.0, "low": -1.0, "high": 3.0, "p": 0.5}
    analysis = {"differences": [entry, {**entry, "metric": "other"}], "guard": GUARD}
    results = (result("i2i", 1, **findings(2, 0.5, 4, 1.0)), result("t2t", 1))
    report = EvaluationReport("a title", (), results=results, analysis=analysis)
    text = screen(report)
    assert "a title" in text
    assert text.count("Difference from i2i") == 1
    assert "-1.0 ±2.0 \n" in text
    assert "20.0 ±2.0" in text
    assert "i2i - t2t" not in text
    verbose = screen(report, verbose=True)
    assert "i2i - t2t" in verbose
    assert "+1.0 [-1.0, +3.0] p 0.500" in verbose
    assert "20.0 [18.0, 22.0]" in verbose
    rows = json.loads(json.dumps(report.rows()))
    assert [d["metric"] for d in rows[0]["differences"]] == ["cider", "other"]
    assert rows[1]["differences"] == []
    assert rows[0]["leaks"]["kept_away"] == GUARD["kept_away"]
    assert {"copies", "gains", "orders"} <= rows[0].keys()


def test_seven_methods_of_four_shots_are_read_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    methods, shots = ("random", "i2i", "i2t", "bm25", "mmr", "lever-lm-of-24-characters"[:24]), (1, 2, 4, 8)
    results = [result("zero-shot", 0)]
    results += [result(method, k, **findings(2, 0.5, 4, 1.0)) for method in methods for k in shots]
    entry = {"a": "random", "metric": "cider", "mean": -31.5, "low": -36.0, "high": -26.0, "p": 0.0}
    analysis: Any = {"differences": [{**entry, "shots": k, "b": b} for k in shots for b in methods[1:]], "guard": GUARD}
    lines = (*notes(results, analysis), "the index set is restricted to 40 of 364 examples by a file of ids: " * 2)
    show(EvaluationReport("shapes (caption), m", (), None, lines, ("a detail",), tuple(results), analysis))
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if len(line) > 80] == []
    assert printed[0] == "shapes (caption), m"
    assert [line for line in printed if line.startswith("Difference")] == ["Difference from random on the same queries"]
    rows = [line.split() for line in printed if line.startswith(methods[-1])]
    assert rows == [
        [methods[-1], "–", *["20.0", "±2.0"] * 4],
        [methods[-1], *["+31.5", "±5.0*"] * 4],
    ]
    assert not any("bold" in line or "detail" in line for line in printed), "all methods are alike"
