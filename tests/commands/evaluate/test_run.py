"""Evaluating retrieval methods on a small world, with the real model."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.components.tasks import task_named
from icltool.contracts import GenerationOptions
from icltool.errors import ConfigError, DataError, PluginError, StoreError
from icltool.execution.progress import for_terminal
from icltool.plugin.manager import component
from icltool.store.evaluations import read_evaluation, read_predictions
from icltool.store.plans import plan_of_setting, write_plan
from icltool.store.records import open_dataset
from tests.commands.generate.test_run import InterruptedProgress

QUIET = for_terminal(quiet=True)


def config(workspace: Path, **options: Any) -> EvaluateConfig:
    return EvaluateConfig(workspace=workspace, **{"model": "tiny-idefics", "device": "cpu", "shots": (2,), **options})


def predictions(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(read_predictions(folder / "predictions" / f"{name}.jsonl"))


@pytest.mark.parametrize(("task", "method"), [("caption", "i2i"), ("vqa", "random"), ("vqa", "t2t")])
def test_predictions_are_those_of_the_saved_prompts(workspace: Path, tiny_model: Any, task: str, method: str) -> None:
    report = evaluate.run(config(workspace, task=task, methods=(method,)), QUIET)
    assert report.path is not None
    rows = predictions(report.path, f"{method}-2-shot-seed0")
    dataset = open_dataset(workspace / "datasets" / "shapes" / task)
    index, queries = dataset.split("train"), dataset.split("validation")
    assert [r["query_id"] for r in rows] == queries.ids.tolist()
    metric = component("metrics", task_named(task).metric)
    for row in rows[:3]:
        query = queries[queries.row_of(row["query_id"])]
        icds = [index[index.row_of(i)] for i in row["icd_ids"]]
        prompt = tiny_model.prompt(task, icds, query)
        assert row["prompt"] == prompt.text
        assert row["images"] == list(prompt.images)
        options = GenerationOptions(task_named(task).max_new_tokens)
        assert [row["raw"]] == tiny_model.generate([prompt], options, 1)
        assert row["answer"] == tiny_model.clean(task, row["raw"])
        assert row["references"] == list(query.references)
    scores = metric.score([r["answer"] for r in rows], [r["references"] for r in rows]) * metric.scale
    np.testing.assert_allclose([r["scores"][metric.name] for r in rows], scores)
    [result] = report.results
    assert result.metrics[metric.name].mean == pytest.approx(scores.mean())
    assert result.metrics[metric.name].low <= scores.mean() <= result.metrics[metric.name].high


def test_the_most_similar_demonstration_stands_last_unless_told_otherwise(workspace: Path) -> None:
    folders = [
        evaluate.run(config(workspace, methods=("i2i",), shots=(3,), reversed_order=r, overwrite=True), QUIET).path
        for r in (True, False)
    ]
    assert folders[0] == folders[1] is not None
    nearest_first = predictions(folders[1], "i2i-3-shot-seed0")
    evaluate.run(config(workspace, methods=("i2i",), shots=(3,)), QUIET)
    nearest_last = predictions(folders[0], "i2i-3-shot-seed0")
    assert [r["icd_ids"][::-1] for r in nearest_last] == [r["icd_ids"] for r in nearest_first]


def test_settings_accumulate_and_finished_ones_are_kept(workspace: Path) -> None:
    first = evaluate.run(config(workspace, methods=("zero-shot", "random"), shots=(1, 2), test_size=8), QUIET)
    assert [(r.method, r.shots) for r in first.results] == [("zero-shot", 0), ("random", 1), ("random", 2)]
    second = evaluate.run(config(workspace, methods=("random", "i2i"), shots=(2,), test_size=8), QUIET)
    assert second.path == first.path
    assert any("1 of 2 settings" in line for line in second.lines())
    assert first.path is not None
    earlier = read_evaluation(first.path)
    assert len(earlier.results) == 4
    assert earlier.provenance["configuration"]["model"] == "tiny-idefics"


def test_an_interrupt_keeps_finished_settings(workspace: Path) -> None:
    options = {"methods": ("random",), "shots": (1, 2), "test_size": 8}
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(config(workspace, **options), InterruptedProgress(9))
    whole = evaluate.run(config(workspace, **options), QUIET)
    assert any("1 of 2 settings" in line for line in whole.lines())


def test_answers_do_not_depend_on_the_batch_size(workspace: Path) -> None:
    rows = []
    for batch_size, cache in ((64, 64), (5, 0)):
        report = evaluate.run(
            config(
                workspace, methods=("random",), shots=(4,), batch_size=batch_size, image_cache_mb=cache, overwrite=True
            ),
            QUIET,
        )
        assert report.path is not None
        rows.append(predictions(report.path, "random-4-shot-seed0"))
    assert rows[0] == rows[1]


def test_seeds_draw_other_demonstrations_and_subsets_are_nested(workspace: Path) -> None:
    report = evaluate.run(config(workspace, methods=("random",), seeds=(0, 1), test_size=10), QUIET)
    assert report.path is not None
    a, b = (predictions(report.path, f"random-2-shot-seed{s}") for s in (0, 1))
    assert [r["query_id"] for r in a] == [r["query_id"] for r in b]
    assert [r["icd_ids"] for r in a] != [r["icd_ids"] for r in b]
    few = evaluate.run(config(workspace, methods=("random",), index_size=5, test_size=4), QUIET)
    assert few.path is not None
    chosen = {i for r in predictions(few.path, "random-2-shot-seed0") for i in r["icd_ids"]}
    assert len(chosen) <= 5
    assert {r["query_id"] for r in predictions(few.path, "random-2-shot-seed0")} <= {r["query_id"] for r in a}


def test_captions_as_queries_are_called_an_upper_bound(workspace: Path) -> None:
    report = evaluate.run(config(workspace, methods=("t2i",), shots=(1,), test_size=4), QUIET)
    assert any("upper bound" in line for line in report.lines())


def test_results_file_is_plain_json(workspace: Path) -> None:
    report = evaluate.run(config(workspace, methods=("zero-shot",), test_size=4), QUIET)
    assert report.path is not None
    content = json.loads((report.path / "results.json").read_text())
    assert "zero-shot" in json.dumps(content)


def screen(report: Any) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table(verbose=True))
    return console.export_text()


def test_several_seeds_are_one_row_and_methods_that_draw_nothing_run_once(workspace: Path) -> None:
    options = {"methods": ("random", "i2i"), "seeds": (0, 1, 2), "test_size": 10}
    report = evaluate.run(config(workspace, **options), QUIET)
    assert [(r.method, r.seed) for r in report.results] == [("random", 0), ("random", 1), ("random", 2), ("i2i", 0)]
    [entry] = report.analysis["seeds"]
    means = [r.metrics["cider"].mean for r in report.results[:3]]
    cider = entry["metrics"]["cider"]
    assert (entry["method"], entry["seeds"]) == ("random", [0, 1, 2])
    assert cider["mean"] == pytest.approx(np.mean(means))
    assert cider["sd"] == pytest.approx(np.std(means, ddof=1))
    assert cider["low"] <= cider["mean"] <= cider["high"]
    assert f"{cider['mean']:.1f} [{cider['low']:.1f}, {cider['high']:.1f}] ±{cider['sd']:.1f}" in screen(report)
    assert "the same demonstrations for every seed, answered once: i2i" in report.lines()
    [difference] = report.analysis["differences"]
    assert difference["mean"] == pytest.approx(cider["mean"] - report.results[3].metrics["cider"].mean)
    rows = report.rows()
    assert [(row["method"], row["seed"]) for row in rows[3:]] == [("i2i", 0), ("random", None)]
    assert rows[-1]["cider over seeds"]["sd"] == cider["sd"]
    assert rows[-1]["differences"][0]["to"] == "i2i"
    assert rows[3]["differences"] == [], "i2i is the second of the pair"
    assert "differences" not in rows[0]
    again = evaluate.run(config(workspace, **options), QUIET)
    assert again.results == report.results
    assert "up to date: 4 of 4 settings" in again.lines()[-1]


def test_orders_of_the_demonstrations_are_added_to_what_is_there(workspace: Path) -> None:
    options = {"methods": ("random",), "shots": (1, 3), "test_size": 6}
    first = evaluate.run(config(workspace, **options), QUIET)
    assert first.path is not None
    few = evaluate.run(config(workspace, permutations=2, **options), QUIET)
    report = evaluate.run(config(workspace, permutations=4, **options), QUIET)
    assert any(line.startswith("order of the demonstrations: cider") for line in report.lines())
    without = evaluate.run(config(workspace, **options), QUIET)
    assert not any("order of the demonstrations" in line for line in without.lines())
    assert not any("orders" in row for row in without.rows())
    assert report.path == few.path == first.path
    assert "up to date: 2 of 2" in report.lines()[-1]
    names = ["random-3-shot-seed0", *(f"random-3-shot-seed0-order{j}" for j in (1, 2, 3))]
    orders = [predictions(report.path, name) for name in names]
    for rows in zip(*orders, strict=True):
        demonstrations = [tuple(row["icd_ids"]) for row in rows]
        assert len({frozenset(ids) for ids in demonstrations}) == 1
        assert len(set(demonstrations)) == 4
    summary = report.results[1].extra["orders"]
    assert summary["each"][0] == few.results[1].extra["orders"]["each"][0]
    figures = [np.mean([row["scores"]["cider"] for row in rows]) for rows in orders]
    assert summary["metrics"]["cider"] == {
        "mean": pytest.approx(np.mean(figures)),
        "sd": pytest.approx(np.std(figures, ddof=1)),
        "best": pytest.approx(max(figures)),
        "worst": pytest.approx(min(figures)),
    }
    answers = [[row["answer"] for row in rows] for rows in orders]
    changed = [len(set(of_query)) > 1 for of_query in zip(*answers, strict=True)]
    assert summary["changed"] == np.mean(changed)
    assert any(line.startswith("  random: 3-shot") and "4 orders" in line for line in report.details)
    assert "orders" not in report.results[0].extra


def test_gains_over_zero_shot_stand_beside_every_answer(workspace: Path) -> None:
    evaluate.run(config(workspace, methods=("random",), test_size=8), QUIET)
    evaluate.run(config(workspace, methods=("zero-shot",), test_size=8), QUIET)
    report = evaluate.run(config(workspace, methods=("random",), test_size=8), QUIET)
    assert report.path is not None
    without = {r["query_id"]: r["scores"]["cider"] for r in predictions(report.path, "zero-shot-0-shot-seed0")}
    rows = predictions(report.path, "random-2-shot-seed0")
    gains = [row["scores"]["cider"] - without[row["query_id"]] for row in rows]
    assert [row["gain"]["cider"] for row in rows] == gains
    result = report.results[0].extra["gains"]["metrics"]["cider"]
    assert result["better"] == sum(gain > 0 for gain in gains)
    assert result["better"] + result["worse"] + result["equal"] == 8
    assert result["mean"] == pytest.approx(np.mean(gains))
    assert result["low"] <= result["mean"] <= result["high"]


def test_a_plan_repeats_the_evaluation_it_was_made_of(workspace: Path) -> None:
    report = evaluate.run(config(workspace, methods=("i2i",), test_size=6), QUIET)
    assert report.path is not None
    evaluated = predictions(report.path, "i2i-2-shot-seed0")
    provenance = read_evaluation(report.path).provenance
    for name in ("mine", "i2i"):
        write_plan(workspace / f"{name}.json", plan_of_setting(report.path, report.results[0], provenance))
    plans = (workspace / "mine.json", workspace / "i2i.json")
    again = evaluate.run(config(workspace, plans=plans, methods=("i2i",), shots=(1, 2), test_size=6), QUIET)
    assert again.path == report.path
    assert [r.method for r in again.results] == ["i2i", "i2i", "mine", "mine", "plan-i2i", "plan-i2i"]
    for name in ("mine", "plan-i2i"):
        replayed = predictions(report.path, f"{name}-2-shot-seed0")
        for key in ("query_id", "icd_ids", "prompt", "answer", "scores"):
            assert [row[key] for row in replayed] == [row[key] for row in evaluated]
    assert {d["mean"] for d in again.analysis["differences"] if d["shots"] == 2} == {0.0}


def test_the_leak_guard_keeps_questions_apart_and_counts_what_is_chosen(workspace: Path) -> None:
    options = {"task": "vqa", "methods": ("i2i",), "shots": (2,), "test_size": 10}
    usual = evaluate.run(config(workspace, **options), QUIET)
    strict = evaluate.run(config(workspace, leak_guard=("question",), **options), QUIET)
    explicit = evaluate.run(config(workspace, leak_guard=("image",), **options), QUIET)
    assert usual.path == explicit.path != strict.path
    leaks = [report.results[0].extra["leaks"] for report in (usual, strict)]
    assert [leak["pairs"] for leak in leaks] == [20, 20]
    assert leaks[0]["question"] > 0
    assert leaks[1]["question"] == leaks[1]["text"] == leaks[1]["image"] == leaks[1]["group"] == 0
    assert usual.analysis["guard"]["kept_away"].keys() == {"image", "group", "any"}
    assert strict.analysis["guard"]["kept_away"]["question"] > 10
    assert any("match their query" in line and "question 0" in line for line in strict.details)
    assert not any("match their query" in line for line in strict.lines())


def test_figures_by_question_type(workspace: Path) -> None:
    report = evaluate.run(config(workspace, task="vqa", methods=("random",), test_size=12), QUIET)
    assert report.path is not None
    rows = predictions(report.path, "random-2-shot-seed0")
    table = report.results[0].extra["by"]["question_type"]
    assert set(table) == {row["question_type"] for row in rows}
    for value, entry in table.items():
        scores = [row["scores"]["vqa-accuracy"] for row in rows if row["question_type"] == value]
        assert entry == {"queries": len(scores), "vqa-accuracy": pytest.approx(np.mean(scores))}


def test_a_metric_that_cannot_run_is_made_up_for_later(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICLTOOL_SPICE_MODELS", str(tmp_path))
    options = {"methods": ("random", "i2i"), "shots": (1,), "test_size": 5}
    with pytest.raises(DataError, match="SPICE needs"):
        evaluate.run(config(workspace, metrics=("spice",), **options), QUIET)
    report = evaluate.run(config(workspace, metrics=("spice", "cider"), **options), QUIET)
    assert [list(r.metrics) for r in report.results] == [["cider"]] * 2
    assert any(line.startswith("spice is missing: SPICE needs") for line in report.lines())
    monkeypatch.setattr("icltool.components.metrics.spice.Spice.check", lambda self: None)
    monkeypatch.setattr(
        "icltool.components.metrics.spice.Spice.score", lambda self, answers, refs: np.full(len(answers), 0.25)
    )
    again = evaluate.run(config(workspace, metrics=("spice", "cider"), **options), InterruptedProgress(1))
    assert again.path == report.path is not None
    assert [list(r.metrics) for r in again.results] == [["spice", "cider"]] * 2
    assert again.results[0].metrics["spice"].mean == 25.0
    assert again.results[0].metrics["cider"] == report.results[0].metrics["cider"]
    assert predictions(again.path, "i2i-1-shot-seed0")[0]["scores"].keys() == {"spice", "cider"}
    assert {d["metric"] for d in again.analysis["differences"]} == {"spice", "cider"}


class TestBadInput:
    def test_a_selector_that_was_never_trained(self, workspace: Path) -> None:
        with pytest.raises(StoreError, match="lever-lm") as caught:
            evaluate.run(config(workspace, methods=("lever-lm",)), QUIET)
        assert "icltool train lever-lm" in str(caught.value.hint)

    def test_wrong_values(self, workspace: Path) -> None:
        with pytest.raises(PluginError, match="did you mean 'random'"):
            evaluate.run(config(workspace, methods=("randon",)), QUIET)
        with pytest.raises(ConfigError, match="shots"):
            evaluate.run(config(workspace, shots=(-1,)), QUIET)
        with pytest.raises(ConfigError, match="no method to evaluate"):
            evaluate.run(config(workspace, methods=()), QUIET)
        with pytest.raises(ConfigError, match="--seed takes at least one"):
            evaluate.run(config(workspace, seeds=()), QUIET)
        with pytest.raises(ConfigError, match="shots from an index set"):
            evaluate.run(config(workspace, shots=(200,)), QUIET)
        with pytest.raises(PluginError, match="metric"):
            evaluate.run(config(workspace, metrics=("ciderr",)), QUIET)

    def test_embeddings_of_another_data_set(self, workspace: Path, tmp_path: Path) -> None:
        name = "shapes-caption-train-tiny-clip.h5"
        other = (workspace / "embeddings" / "shapes-vqa-train-tiny-clip.h5").read_bytes()
        (workspace / "embeddings" / name).write_bytes(other)
        with pytest.raises(StoreError, match="another version") as caught:
            evaluate.run(config(workspace, methods=("i2i",)), QUIET)
        assert "icltool embed" in str(caught.value.hint)

    def test_cut_embeddings(self, workspace: Path) -> None:
        path = workspace / "embeddings" / "shapes-caption-train-tiny-clip.h5"
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(StoreError, match=path.name):
            evaluate.run(config(workspace, methods=("i2i",)), QUIET)


def test_what_cannot_be_chosen_shows_before_anything_is_answered(workspace: Path) -> None:
    options = {"methods": ("random", "plan"), "method_options": {"plan": {"file": str(workspace / "none.json")}}}
    with pytest.raises(StoreError, match=r"none\.json"):
        evaluate.run(config(workspace, **options), QUIET)
    with pytest.raises(ConfigError, match="9999 shots"):
        evaluate.run(config(workspace, methods=("random",), shots=(1, 9999)), QUIET)
    assert not list(workspace.glob("evaluations/*/predictions/*"))


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"fixed": True}, "random.fixed=True"),
        ({"randm.fixed": True}, "did you mean random.fixed"),
        ({"i2i.k": 1}, "methods of this call: random"),
    ],
)
def test_an_option_of_no_evaluated_method_is_refused(workspace: Path, options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match="is evaluated") as caught:
        evaluate.run(config(workspace, methods=("random",), method_options=options), QUIET)
    assert hint in (caught.value.hint or "")


def test_a_model_that_cannot_be_loaded_leaves_no_folder(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODEL_CPK_DIR", raising=False)
    before = set(workspace.glob("evaluations/*"))
    with pytest.raises(ConfigError, match="weights of idefics-80b"):
        evaluate.run(config(workspace, model="idefics-80b"), QUIET)
    assert set(workspace.glob("evaluations/*")) == before


def test_a_metric_of_another_task_is_remarked_on(workspace: Path) -> None:
    lines = evaluate.run(config(workspace, metrics=("cider", "vqa-accuracy")), QUIET).lines()
    assert any(line.startswith("vqa-accuracy is made for vqa") for line in lines)
    assert not any(line.startswith("cider is made for") for line in lines)


def test_what_another_setting_of_the_same_name_found_stays(workspace: Path) -> None:
    def evaluated(pool: int) -> Any:
        chosen = {"methods": ("mmr",), "shots": (2,), "permutations": 2, "test_size": 6}
        return evaluate.run(config(workspace, **chosen, method_options={"mmr.pool": pool}), QUIET)

    first = evaluated(3)
    digest = first.results[0].extra["digest"][:6]
    files = {file.name: file.read_text() for file in (first.path / "predictions").iterdir()}
    second = evaluated(9)
    [notes] = [line for line in second.remarks if "are now called" in line]
    assert notes.startswith("mmr, 2-shot: the earlier results with other options or inputs (options then: pool=3) are")
    assert f"are now called mmr@{digest}" in notes
    assert second.results[0].extra["digest"] != first.results[0].extra["digest"]
    results = {result.method: result for result in read_evaluation(first.path).results}
    assert set(results) == {"mmr", f"mmr@{digest}"}
    assert results[f"mmr@{digest}"].metrics == first.results[0].metrics
    for name, content in files.items():
        assert (first.path / "predictions" / name.replace("mmr", f"mmr@{digest}")).read_text() == content
    third = evaluated(3)  # asked for again it has its name back, and nothing is answered
    assert any("up to date: 1 of 1" in line for line in third.remarks)
    assert {
        file.name: file.read_text() for file in (first.path / "predictions").iterdir() if "@" not in file.name
    } == files
    assert len(list((first.path / "predictions").iterdir())) == 4


def test_settings_of_one_method_stand_side_by_side(workspace: Path) -> None:
    methods = ("mmr:pool=3", "mmr:pool=9", "near=i2i:reversed_order=false", "i2i")
    report = evaluate.run(config(workspace, methods=methods, test_size=6), QUIET)
    assert [result.method for result in report.results] == ["mmr:pool=3", "mmr:pool=9", "near", "i2i"]
    assert [result.extra["options"].get("pool") for result in report.results[:2]] == [3, 9]
    near, far = (predictions(report.path, f"{name}-2-shot-seed0") for name in ("near", "i2i"))
    assert [row["icd_ids"] for row in near] == [row["icd_ids"][::-1] for row in far]
    again = evaluate.run(config(workspace, methods=methods, test_size=6), QUIET)
    assert any("up to date: 4 of 4" in line for line in again.remarks)
