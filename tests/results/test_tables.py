"""Results as tables: on the screen, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console, Group

from icltool.results.baseline import against_baseline
from icltool.results.delimited import COLUMNS, results_csv, results_rows
from icltool.results.grid import over_seeds, result_grid
from icltool.results.latex import escape as latex_escape, results_latex
from icltool.results.markdown import escape as markdown_escape, results_markdown
from icltool.results.tables import baseline_sheet, breakdown_sheet, difference_sheet, result_sheets
from icltool.store.evaluations import MetricResult, SettingResult
from tests.results.results import grid_of_results, setting


def _tables(results: list[SettingResult], bounds: bool = False) -> Group:
    return Group(*result_sheets(results, bounds))


def _screen(table: object, styled: bool = False, width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=styled)
    console.print(table)
    return console.export_text(styles=styled)


def test_methods_by_shots() -> None:
    grid = result_grid(grid_of_results())
    assert grid.header == ["method", "0-shot", "1-shot", "4-shot"]
    assert [row.method for row in grid.rows] == ["zero-shot", "i2i", "lever-lm"]
    assert [sorted(row.cells) for row in grid.rows] == [[0], [1, 4], [1, 4]]
    assert grid.rows[1].cells[4].text == "50.1 [47.8, 52.3]"


def test_a_tie_has_no_best() -> None:
    def best(*results: SettingResult) -> set[tuple[str, int]]:
        rows = result_grid(results).rows
        return {(row.method, shots) for row in rows for shots, cell in row.cells.items() if cell.best}

    assert best(*grid_of_results()) == {("i2i", 1), ("lever-lm", 4)}, "zero-shot has no rival"
    assert best(*grid_of_results(), setting("t2t", 4, 60.04)) == {("i2i", 1)}, "60.0 and 60.04 print alike"
    assert best(setting("i2i", 1, 60.0), setting("t2t", 1, 60.06)) == {("t2t", 1)}


def test_the_lowest_mean_rank_is_the_best() -> None:
    grid = result_grid([setting(method, 1, mean, metric="mean-rank") for method, mean in (("i2i", 3.0), ("t2t", 2.5))])
    assert [row.cells[1].best for row in grid.rows] == [False, True]


def test_no_number_is_never_the_best() -> None:
    grid = result_grid([setting("i2i", 1, math.nan), setting("t2t", 1, 1.0), setting("t2i", 1, 0.5)])
    assert [row.cells[1].best for row in grid.rows] == [False, True, False]


def test_seeds_have_rows_of_their_own() -> None:
    results = [setting("random", 1, 30.0, seed=1), setting("random", 1, 31.0, seed=2), setting("i2i", 1, 40.0, seed=1)]
    assert [row.method for row in result_grid(results).rows] == ["random (seed 1)", "random (seed 2)", "i2i"]


def test_the_later_result_of_one_setting_counts() -> None:
    grid = result_grid([setting("i2i", 1, 40.0), setting("i2i", 1, 41.0)])
    assert [row.cells[1].result.mean for row in grid.rows] == [41.0]


def test_several_metrics() -> None:
    both = {"cider": MetricResult(40, 39, 41), "word-accuracy": MetricResult(80, 75, 85)}
    results = [replace(setting("i2i", 1, 0.0), metrics=both), setting("t2t", 1, 30.0)]
    grid = result_grid(results)
    assert grid.header == ["method", "metric", "1-shot"]
    assert [(row.method, row.metric) for row in grid.rows] == [
        ("i2i", "cider"),
        ("i2i", "word-accuracy"),
        ("t2t", "cider"),
    ]
    lines = [line.split() for line in _screen(_tables(results)).splitlines()]
    assert lines.index(["cider", "1-shot"]) < lines.index(["word-accuracy", "1-shot"]), "a table for each metric"
    assert lines[-3] == ["i2i", "80.0", "±5.0"]


def test_screen() -> None:
    text = _screen(_tables(grid_of_results()))
    assert text.splitlines()[0].split() == ["cider", "0-shot", "1-shot", "4-shot"]
    assert [line.split() for line in text.splitlines()[2:5]] == [
        ["zero-shot", "10.0", "±2.2", "–", "–"],
        ["i2i", "–", "40.0", "±2.2", "50.1", "±2.2"],
        ["lever-lm", "–", "39.0", "±2.2", "60.0", "±2.2"],
    ]
    assert text.splitlines()[5] == "mean ±half of the 95 % interval; bold: best of its column"
    assert "\x1b[1m60.0 ±2.2" in _screen(_tables(grid_of_results()), styled=True)
    exact = _screen(_tables(grid_of_results(), bounds=True), styled=True)
    assert "10.0 [7.8, 12.2]" in exact
    assert "\x1b[1m60.0 [57.8, 62.2]" in exact


def test_half_of_an_asymmetric_interval() -> None:
    one = replace(setting("i2i", 1, 0.0), metrics={"cider": MetricResult(40.0, 36.0, 41.0)})
    unknown = replace(setting("t2t", 1, 0.0), metrics={"cider": MetricResult(40.0, math.nan, math.nan)})
    nothing = replace(setting("t2i", 1, 0.0), metrics={"cider": MetricResult(math.nan, math.nan, math.nan)})
    rows = [line.split() for line in _screen(_tables([one, unknown, nothing])).splitlines()[2:5]]
    assert rows == [["i2i", "40.0", "±2.5"], ["t2t", "40.0"], ["t2i", "–"]]


def test_where_all_are_alike_nothing_is_bold() -> None:
    text = _screen(_tables([setting(method, 1, 62.5) for method in ("i2i", "t2t", "random")]), styled=True)
    assert "\x1b[1m62.5" not in text
    assert "bold" not in text


def test_a_mean_over_seeds_shows_its_spread() -> None:
    results = [
        replace(setting("random", 1, 30.0), extra={"seeds": [0, 1], "sd": {"cider": 1.26}}),
        setting("i2i", 1, 40.0),
    ]
    grid = result_grid(results)
    assert [row.cells[1].text for row in grid.rows] == ["30.0 [27.8, 32.2] ±1.3", "40.0 [37.8, 42.2]"]
    assert "±standard deviation over seeds" in grid.caption
    assert "±" not in result_grid(grid_of_results()).caption
    assert "30.0 [27.8, 32.2] ±1.3" in _screen(_tables(results, bounds=True))
    assert "30.0 ±2.2" in _screen(_tables(results))


def test_seeds_become_one_result() -> None:
    tables = [{"answer_type": {"other": {"queries": 4, "cider": figure}}} for figure in (10.0, 30.0)]
    results = [replace(setting("random", 1, 30.0, seed=s), extra={"by": tables[s], "digest": "d"}) for s in (0, 1)]
    one = {"mean": 20.0, "low": 15.0, "high": None, "sd": 2.0, "min": 18.0, "max": 22.0}
    analysis = {"seeds": [{"method": "random", "shots": 1, "seeds": [0, 1], "metrics": {"cider": one}}]}
    merged = over_seeds([*results, setting("i2i", 1, 40.0), setting("random", 2, 1.0)], analysis)
    assert [(r.method, r.shots) for r in merged] == [("random", 1), ("i2i", 1), ("random", 2)]
    assert merged[0].metrics["cider"].mean == 20.0
    assert math.isnan(merged[0].metrics["cider"].high)
    assert merged[0].extra["by"]["answer_type"]["other"] == {"queries": 4.0, "cider": 20.0}
    assert merged[0].extra["sd"] == {"cider": 2.0}
    assert over_seeds(results, {}) == results


def test_differences_on_the_screen() -> None:
    entry = {
        "shots": 1,
        "a": "random",
        "b": "[i2i]",
        "metric": "cider",
        "mean": -5.0,
        "low": -9.0,
        "high": 1.0,
        "p": 0.125,
    }
    certain = {**entry, "shots": 4, "low": -9.0, "high": -1.0, "p": 0.0009}
    unknown = {**entry, "b": "t2t", "mean": None, "low": None, "high": None, "p": 1.0}
    table = difference_sheet([entry, certain, unknown, {**entry, "metric": "spice"}], "cider")
    text = _screen(table)
    assert "random - [i2i]" in text
    assert "-5.0 [-9.0, +1.0] p 0.125" in text
    assert "\x1b[1m-5.0 [-9.0, -1.0] p < 0.001" in _screen(table, styled=True)
    assert "\x1b[1m-5.0 [-9.0, +1.0]" not in _screen(table, styled=True)
    assert len(table.rows) == 2


def test_answer_types_on_the_screen() -> None:
    tables = [{"yes/no": {"queries": 3, "cider": 70.0}, "other": {"queries": 9, "cider": 20.04}}, {}]
    results = [
        replace(setting("i2i", shots, 30.0), extra={"by": {"answer_type": table}} if table else {})
        for shots, table in zip((1, 2), tables, strict=True)
    ]
    text = _screen(breakdown_sheet(results, "answer_type", "cider"))
    for part in ("other (9)", "yes/no (3)", "i2i 1-shot", "20.0", "70.0", "By answer type"):
        assert part in text
    assert "2-shot" not in text


def test_numbers_are_in_their_order_on_the_screen() -> None:
    table = {value: {"queries": 1, "cider": 1.0} for value in ("10", "many", "9", "2")}
    sheet = breakdown_sheet([replace(setting("i2i", 1, 1.0), extra={"by": {"words": table}})], "words", "cider")
    assert sheet.columns == ["2 (1)", "9 (1)", "10 (1)", "many (1)"]


SEVEN = ("zero-shot", "random", "i2i", "bm25", "mmr:pool=20", "lever-lm-min_vl-seed-0-A", "pointer")


def _seven(shots: tuple[int, ...]) -> list[SettingResult]:
    """Seven methods, the longest name of 24 characters, with figures as wide as CIDEr's."""
    pairs = [(method, k) for method in SEVEN for k in (shots if method != "zero-shot" else (0,))]
    return [setting(method, k, 100.0 + 10 * k + place) for place, (method, k) in enumerate(pairs)]


@pytest.mark.parametrize("shots", [(1, 2, 4, 8), tuple(range(1, 13)), (1, 2, 4, 8, 16, 32)])
def test_at_80_columns_no_line_is_longer_and_no_cell_is_broken(shots: tuple[int, ...]) -> None:
    results = _seven(shots)
    differences = [
        {"shots": k, "a": "random", "b": b, "metric": "cider", "mean": -100.0, "low": -111.0, "high": -93.0, "p": 0.0}
        for k in shots
        for b in SEVEN[2:]
    ]
    baseline = against_baseline(results, {"differences": differences}, "cider")
    assert baseline is not None
    cells = [f"{r.metrics['cider'].mean:.1f} ±2.2" for r in results]
    exact = [f"{m.mean:.1f} [{m.low:.1f}, {m.high:.1f}]" for m in (r.metrics["cider"] for r in results)]
    for table, whole in (
        (_tables(results), [*cells, *SEVEN, *(f"{k}-shot" for k in shots)]),
        (_tables(results, bounds=True), exact),
        (baseline_sheet(baseline, "cider"), ["+100.0 ±9.0*", *SEVEN[2:]]),
        (difference_sheet(differences, "cider"), ["-100.0 [-111.0, -93.0] p < 0.001"]),
    ):
        text = _screen(table, width=80)
        assert max(map(len, text.splitlines())) <= 80
        assert [cell for cell in whole if not re.search(rf"(^|\s){re.escape(cell)}(\s|$)", text)] == []
    assert _screen(baseline_sheet(baseline, "cider"), width=80).count("±9.0*") == len(differences)


def test_four_shots_of_seven_methods_fit_side_by_side() -> None:
    lines = _screen(_tables([r for r in _seven((1, 2, 4, 8)) if r.shots]), width=80).splitlines()
    assert lines[0].split() == ["cider", "1-shot", "2-shot", "4-shot", "8-shot"]
    assert len(lines) == 10, "heading, rule, seven rows less zero-shot, caption, empty line"


def test_names_that_are_too_long_are_folded() -> None:
    long = "live-" * 8
    results = [setting(method, shots, 100.0) for method in ("i2i", long) for shots in (1, 2, 4, 8)]
    text = _screen(_tables(results), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("100.0 ±2.2") == 8
    assert long in _screen(_tables(results), width=160), "whole if it fits"


def test_the_baseline_is_random_then_zero_shot_then_the_first() -> None:
    entry = {"shots": 1, "a": "i2i", "metric": "cider", "mean": 5.0, "low": 2.0, "high": 9.0, "p": 0.01}
    pairs = [{**entry, "b": "random"}, {**entry, "b": "t2t"}, {**entry, "a": "random", "b": "t2t", "low": -1.0}]
    methods = [setting(method, 1, 50.0) for method in ("i2i", "random", "t2t")]
    baseline = against_baseline(methods, {"differences": pairs}, "cider")
    assert baseline is not None
    assert baseline.method == "random"
    assert baseline.differences == {"i2i": {1: (5.0, 2.0, 9.0)}, "t2t": {1: (-5.0, -9.0, 1.0)}}
    text = _screen(baseline_sheet(baseline, "cider"))
    assert "Difference from random" in text
    assert "+5.0 ±3.5*" in text
    assert "-5.0 ±5.0 \n" in text, "its interval includes 0"
    first = against_baseline(methods[::2], {"differences": pairs[1:2]}, "cider")
    assert first is not None
    assert (first.method, list(first.differences)) == ("i2i", ["t2t"])
    gains = {"gains": {"against": {}, "metrics": {"cider": {"mean": 3.0, "low": 1.0, "high": 4.0}}}}
    gained = [setting("zero-shot", 0, 1.0), *(replace(one, extra=gains) for one in methods[::2])]
    zero = against_baseline(gained, {"differences": pairs[1:2]}, "cider")
    assert zero is not None
    assert (zero.method, zero.differences) == ("zero-shot", {m: {1: (3.0, 1.0, 4.0)} for m in ("i2i", "t2t")})
    assert against_baseline(methods[:1], {}, "cider") is None


def test_zero_shot_is_compared_with_random_at_each_number_of_shots() -> None:
    gains = {"gains": {"against": {}, "metrics": {"cider": {"mean": 3.0, "low": 1.0, "high": 4.0}}}}
    results = [setting("zero-shot", 0, 1.0), *(replace(setting("random", k, 4.0), extra=gains) for k in (1, 2))]
    baseline = against_baseline(results, {}, "cider")
    assert baseline is not None
    assert baseline.differences == {"zero-shot": dict.fromkeys((1, 2), (-3.0, -4.0, -1.0))}
    assert "zero-shot: without demonstrations, against random at each" in _screen(baseline_sheet(baseline, "cider"))


def test_names_are_not_read_as_markup() -> None:
    assert "[red]odd[/red]" in _screen(_tables([setting("[red]odd[/red]", 1, 1.0)]))


def test_markdown_is_a_table_that_parses() -> None:
    lines = results_markdown([*grid_of_results(), setting("odd|name_*", 1, 1.0)]).splitlines()
    assert lines[0] == "| method | 0-shot | 1-shot | 4-shot |"
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert lines[4] == r"| lever-lm | – | 39.0 \[36.8, 41.2\] | **60.0 \[57.8, 62.2\]** |"
    assert lines[5].startswith(r"| odd\|name\_\* | – | 1.0")
    assert all(line.replace(r"\|", "").count("|") == 5 for line in lines[:6])


def test_latex_rows_and_escapes() -> None:
    text = results_latex([*grid_of_results(), setting("50%_a&b", 1, 1.0)])
    assert r"lever-lm & -- & 39.0 [36.8, 41.2] & \textbf{60.0 [57.8, 62.2]} \\" in text
    assert r"50\%\_a\&b & -- & 1.0" in text
    assert r"\begin{tabular}{lrrr}" in text
    rows = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(rows) == 4
    assert all(row.replace(r"\&", "").count("&") == 3 for row in rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b^c~d", r"a\_b\textasciicircum{}c\textasciitilde{}d"),
        ("{x}\\y#1", r"\{x\}\textbackslash{}y\#1"),
        ("two\nlines", "two lines"),
    ],
)
def test_latex_escape(text: str, expected: str) -> None:
    assert latex_escape(text) == expected


def test_markdown_escape() -> None:
    assert markdown_escape("a|b\n*c* <d>") == r"a\|b \*c\* \<d\>"


def test_csv_reads_back() -> None:
    odd = SettingResult('say "hi", you', 2, 3, 7, {"cider": MetricResult(0.1 + 0.2, 0.0, 1.0)}, 2.5)
    rows = list(csv.DictReader(io.StringIO(results_csv(results_rows([*grid_of_results(), odd])))))
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    assert len(rows) == 6
    assert rows[-1]["method"] == 'say "hi", you'
    assert float(rows[-1]["mean"]) == 0.1 + 0.2
    assert (rows[-1]["shots"], rows[-1]["seed"], rows[-1]["queries"]) == ("2", "3", "7")


def test_costs_are_columns_of_their_own_where_there_are_any() -> None:
    cost = {"queries": 8, "device": "cpu", "prompt_tokens": 28.5, "flops": 2.5e8, "seconds": 0.25}
    results = [*grid_of_results(), replace(setting("live", 0, 30.0), extra={"cost": cost})]
    rows = list(csv.DictReader(io.StringIO(results_csv(results_rows(results)))))
    costed = (*COLUMNS, "prompt_tokens", "flops", "seconds_per_query")
    assert tuple(rows[0])[: len(costed)] == costed
    assert [row["flops"] for row in rows] == ["", "", "", "", "", "250000000.0"]
    assert (rows[-1]["prompt_tokens"], rows[-1]["seconds_per_query"]) == ("28.5", "0.25")


def test_a_row_says_all_that_its_figures_depend_on() -> None:
    run = {"date": "2026-01-01", "torch": "2.14", "device": "cpu", "precision": "float32", "weights": "abc"}
    result = replace(
        setting("mmr", 2, 30.0), extra={"run": {**run, "generation": {"num_beams": 3}}, "options": {"pool": 9}}
    )
    expected = {
        "configuration": {"dataset": "shapes", "task": "vqa", "model": "m", "prompt_template": None, "index_size": -1}
    }
    [row] = csv.DictReader(io.StringIO(results_csv(results_rows([result], expected, "shapes-vqa-m-0a"))))
    assert (row["evaluation"], row["dataset"], row["split"], row["model"]) == (
        "shapes-vqa-m-0a",
        "shapes",
        "validation",
        "m",
    )
    assert {key: row[key] for key in run} == run
    assert json.loads(row["method_options"]) == {"pool": 9}
    assert json.loads(row["options"])["num_beams"] == 3
    assert json.loads(row["options"])["index_size"] == -1


def test_interventions_are_compared_in_the_columns_of_the_others_shots() -> None:
    entry = {"metric": "cider", "mean": 1.0, "low": 0.5, "high": 2.0, "p": 0.01, "a": "live"}
    differences = [
        {**entry, "shots": 0, "b": "zero-shot"},
        *({**entry, "shots": k, "a_shots": 0, "b": b} for k in (1, 8) for b in ("random", "i2i")),
    ]
    sheet = difference_sheet(differences, "cider")
    assert sheet.columns == ["0-shot", "1-shot", "8-shot"]
    assert [row.name for row in sheet.rows] == ["live - zero-shot", "live - random", "live - i2i"]
