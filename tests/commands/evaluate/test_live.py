"""Evaluating what stands in for demonstrations, with the real model, and what it costs."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from icltool.commands.evaluate import answering, costs, run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.components.interventions.shift import ShiftVectors
from icltool.components.interventions.stored import StoredOptions
from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.contracts import GenerationOptions
from icltool.errors import ConfigError
from icltool.execution.progress import for_terminal
from icltool.store.evaluations import read_evaluation, read_predictions
from icltool.store.records import open_dataset
from tests.commands.evaluate.test_resuming import Spy, content
from tests.commands.evaluate.vectors import vectors
from tests.commands.generate.test_run import InterruptedProgress

QUIET = for_terminal(quiet=True)


def config(workspace: Path, **options: Any) -> EvaluateConfig:
    start: dict[str, Any] = {"model": "tiny-idefics", "device": "cpu", "task": "vqa", "test_size": 12, "shots": (2,)}
    return EvaluateConfig(workspace=workspace, **{**start, **options})


@pytest.fixture(scope="module")
def strong(tiny_model: IdeficsModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vectors(tmp_path_factory.mktemp("strong") / "strong.safetensors", tiny_model, 5.0)


def answers(folder: Path | None, name: str) -> list[str]:
    assert folder is not None
    return [row["raw"] for row in read_predictions(folder / "predictions" / f"{name}-0-shot-seed0.jsonl")]


def without_costs(result: dict[str, Any]) -> dict[str, Any]:
    for entry in result["results"]["results"]:
        assert entry["extra"].pop("cost")["queries"] == 1
    return result


def test_answers_are_those_of_the_model_under_the_vectors(
    workspace: Path, tiny_model: IdeficsModel, strong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "SAMPLE", 2)
    report = evaluate.run(config(workspace, methods=("live", "zero-shot"), vectors=(strong,)), QUIET)
    assert [result.extra["cost"]["queries"] for result in report.results] == [2, 2]
    queries = open_dataset(workspace / "datasets" / "shapes" / "vqa").split("validation")
    assert report.path is not None
    rows = read_predictions(report.path / "predictions" / "live-0-shot-seed0.jsonl")
    prompts = [replace(tiny_model.prompt("vqa", (), queries[queries.row_of(r["query_id"])]), target="") for r in rows]
    plain = tiny_model.generate(prompts, GenerationOptions(5), 1)
    with ShiftVectors(StoredOptions(method="live", file=strong)).applied(tiny_model):
        steered = tiny_model.generate(prompts, GenerationOptions(5), 1)
    assert [row["raw"] for row in rows] == steered != plain
    assert answers(report.path, "zero-shot") == plain, "what came after is as if nothing had been"
    assert [(row["prompt"], row["icd_ids"]) for row in rows] == [(p.text, []) for p in prompts]


def test_vectors_without_strength_change_nothing(workspace: Path, tiny_model: IdeficsModel, tmp_path: Path) -> None:
    none = vectors(tmp_path / "none.safetensors", tiny_model, 0.0)
    report = evaluate.run(config(workspace, methods=("zero-shot", "live"), vectors=(none,), cost=False), QUIET)
    assert answers(report.path, "live") == answers(report.path, "zero-shot")
    assert report.results[0].metrics == report.results[1].metrics
    assert not any("costs" in line or "cost.png" in line for line in report.lines())


def test_comparisons_and_costs_are_shown(workspace: Path, strong: Path) -> None:
    methods = ("zero-shot", "random", "live")
    report = evaluate.run(config(workspace, methods=methods, shots=(1, 4), seeds=(0, 1), vectors=(strong,)), QUIET)
    assert report.path is not None
    pairs = [(d["a"], d["b"], d["shots"]) for d in report.analysis["differences"]]
    assert pairs == [("live", "zero-shot", 0), ("live", "random", 1), ("live", "random", 4)]
    live = report.results[-1]
    by_hand = {1: [], 4: []}  # type: dict[int, list[float]]
    for result in report.results:
        if result.shots:
            by_hand[result.shots].append(result.metrics["vqa-accuracy"].mean)
    differences = {d["shots"]: d["mean"] for d in report.analysis["differences"] if d["b"] == "random"}
    expected = {k: live.metrics["vqa-accuracy"].mean - sum(v) / 2 for k, v in by_hand.items()}
    assert differences == pytest.approx(expected)
    assert live.extra["gains"]["metrics"]["vqa-accuracy"].keys() >= {"better", "worse", "mean"}
    assert live.extra["intervention"]["about"]["shots"] == 8
    costs = {(r.method, r.shots): r.extra["cost"] for r in report.results if not r.seed}
    assert all("cost" not in r.extra for r in report.results if r.seed), "one seed of each tells"
    assert costs["live", 0]["prompt_tokens"] == costs["zero-shot", 0]["prompt_tokens"]
    assert costs["live", 0]["flops"] < costs["random", 1]["flops"] < costs["random", 4]["flops"]
    [row] = [row for row in json.loads(json.dumps(report.rows())) if row["method"] == "live"]
    assert [(o["to"], o["shots"]) for o in row["costs of others"]] == [("random", 1), ("random", 4)]
    ratio = costs["random", 4]["flops"] / costs["live", 0]["flops"]
    assert row["costs of others"][1]["flops"] == pytest.approx(ratio)
    assert [(d["to"], d.get("shots")) for d in row["differences"]] == [
        ("zero-shot", None),
        ("random", 1),
        ("random", 4),
    ]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table(verbose=True))
    text = console.export_text()
    assert "live - random" in text
    assert "x FLOPs" in text
    assert f"accuracy against cost: {report.path / 'cost.png'}" in report.lines()
    assert (report.path / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert any(line.startswith(f"live: {strong}, 516 numbers") for line in report.lines())
    assert len({cost["call"] for cost in costs.values()}) == 1
    assert all(other["seconds"] for other in row["costs of others"])


def test_costs_are_measured_once_and_without_answering_again(workspace: Path, strong: Path) -> None:
    options: dict[str, Any] = {"methods": ("zero-shot", "random")}
    first = evaluate.run(config(workspace, **options), QUIET)
    assert not any("cost" in r.extra for r in first.results)
    spy = Spy()
    queries = evaluate.run(config(workspace, **options, cost=True), spy)
    assert spy.done == {"cost per query": 0}
    assert any(line.startswith("up to date: 2 of 2") for line in queries.lines())
    spy = Spy()
    again = evaluate.run(config(workspace, **options, cost=True), spy)
    assert spy.done == {}
    assert [r.extra["cost"] for r in again.results] == [r.extra["cost"] for r in queries.results]
    more = evaluate.run(config(workspace, methods=("zero-shot", "live"), vectors=(strong,), metrics=()), Spy())
    costs = [r.extra["cost"]["call"] for r in more.results]
    assert costs[0] == costs[1] != queries.results[0].extra["cost"]["call"], "seconds that are compared are of one call"
    assert more.path is not None
    assert len(read_evaluation(more.path).results) == 3
    bare = evaluate.run(config(workspace, methods=("zero-shot", "live"), vectors=(strong,), cost=False), QUIET)
    assert not any("cost" in line for line in bare.lines())
    assert not any({"cost", "costs of others"} & row.keys() for row in bare.rows())
    assert bare.path is not None
    assert all("cost" in r.extra for r in read_evaluation(bare.path).results), "the file keeps what was measured"
    spy = Spy()
    evaluate.run(config(workspace, methods=("zero-shot", "live"), vectors=(strong,)), spy)
    assert spy.done == {}


def test_an_interrupted_setting_goes_on_as_if_nothing_had_happened(
    workspace: Path, tmp_path: Path, strong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "CHUNK", 4)
    monkeypatch.setattr(answering, "BATCHES", 1)
    options: dict[str, Any] = {"methods": ("live", "zero-shot"), "vectors": (strong,), "batch_size": 4}
    shutil.copytree(workspace, tmp_path / "other")
    whole = evaluate.run(config(tmp_path / "other", **options), QUIET).path
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(config(workspace, **options), InterruptedProgress(8))
    spy = Spy()
    resumed = evaluate.run(config(workspace, **options), spy).path
    assert spy.done == {"live": 8, "zero-shot": 0, "cost per query": 0}
    assert whole is not None
    assert resumed is not None
    assert without_costs(content(resumed)) == without_costs(content(whole))


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({"sites": 32}, "layers: 32"),
        ({"width": 64}, "hidden size: 64"),
        ({"weights": "0123"}, "trained for other weights"),
    ],
)
def test_vectors_of_another_model_are_refused_before_anything_is_answered(
    workspace: Path, tiny_model: IdeficsModel, tmp_path: Path, base: dict[str, Any], words: str
) -> None:
    other = vectors(tmp_path / "other.safetensors", tiny_model, 0.1, **base)
    spy = Spy()
    with pytest.raises(ConfigError, match=words):
        evaluate.run(config(workspace, methods=("zero-shot", "live"), vectors=(other,)), spy)
    assert spy.done == {}


def test_another_prompt_format_is_told_each_time(workspace: Path, tiny_model: IdeficsModel, tmp_path: Path) -> None:
    other = vectors(tmp_path / "other.safetensors", tiny_model, 0.1, template="ffff")
    for _ in range(2):
        report = evaluate.run(config(workspace, vectors=(other,), cost=False), QUIET)
        assert any("another prompt format" in line for line in report.lines())


def test_a_prompt_that_does_not_fit_alone_costs_its_cost_only(
    workspace: Path, strong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> Any:
        raise ConfigError("out of memory with a single prompt of 33 images", "take less")

    monkeypatch.setattr(costs, "query_cost", full)
    report = evaluate.run(config(workspace, vectors=(strong,)), QUIET)
    assert any(line.startswith("the cost of live cannot be measured: out of memory") for line in report.lines())
    assert report.results[0].metrics
