"""Methods that ask the model what to show: chunk by chunk, where the answers are made."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.cli.app import run
from icltool.commands.evaluate import answering, run as evaluate
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.report import EvaluationReport
from icltool.commands.evaluate.settings import Settings
from icltool.contracts import IntArray, ScoringRequest
from icltool.engine.generation import generation_options
from icltool.errors import ConfigError
from icltool.execution.progress import for_terminal
from icltool.store.evaluations import predictions_file, read_predictions
from tests.commands.evaluate.asking import OddOnes, registered
from tests.processes import Child

OPTIONS: dict[str, Any] = {
    **{"model": "tiny-idefics", "device": "cpu", "task": "caption", "methods": ("random+surest",), "shots": (2,)},
    **{"metrics": ("cider",), "test_size": 20},
}


@pytest.fixture(autouse=True, scope="module")
def methods() -> Iterator[None]:
    with registered():
        yield


def evaluated(workspace: Path, **options: Any) -> EvaluationReport:
    return evaluate.run(EvaluateConfig(workspace=workspace, **{**OPTIONS, **options}), for_terminal(quiet=True))


def chosen_ids(report: EvaluationReport, method: str, shots: int = 2) -> list[list[int]]:
    assert report.path is not None
    return [row["icd_ids"] for row in read_predictions(predictions_file(report.path, method, shots, 0))]


def candidates_of(workspace: Path, **options: Any) -> tuple[Inputs, IntArray]:
    """What the asking method is given to choose among."""
    settings = Settings(Inputs(EvaluateConfig(workspace=workspace, **{**OPTIONS, **options})))
    among = settings.among(settings.groups[0][0])
    assert among is not None
    return settings.inputs, among


def chosen_by_hand(workspace: Path) -> tuple[np.ndarray, IntArray]:
    """(mean log-probabilities [Q, P] of what the method asks, ids int64 [Q, P] of what it chooses among), one by one."""
    inputs, among = candidates_of(workspace)
    config, task = inputs.config, inputs.task
    model = config.open_model(task)
    session = config.open_session(task, model, generation_options({}, task, model)).plain()
    means = np.empty(among.shape)
    for position, query in enumerate(inputs.queries.rows(inputs.query_rows)):
        for place, example in enumerate(inputs.index.rows(inputs.index_rows[among[position]])):
            [score] = session.target_scores([ScoringRequest(replace(query, label=example.label), (example,))])
            means[position, place] = score.mean
    return means, inputs.index.ids[inputs.index_rows[among]]


def test_the_model_is_asked_and_what_that_takes_is_told(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = evaluated(workspace)
    means, ids = chosen_by_hand(workspace)
    expected = np.take_along_axis(ids, (-means).argsort(axis=1, kind="stable")[:, :2], axis=1)
    assert chosen_ids(report, "random+surest") == expected.tolist()
    [result] = report.results
    assert result.extra["choosing"] == {"prompts": 8 * 20}
    text = "\n".join(report.details)
    assert "choosing (prompts per query):\n  random+surest: 2-shot 8" in text
    assert report.path is not None
    again = evaluated(workspace)
    assert "up to date: 1 of 1" in "\n".join(again.lines())
    other = evaluated(workspace, metrics=("bleu-4",))
    assert other.results[0].extra["choosing"] == {"prompts": 160}, "answers of another metric's evaluation"
    monkeypatch.setattr(answering, "CHUNK", 3)
    monkeypatch.setattr(answering, "BATCHES", 1)
    chunks = evaluated(workspace, overwrite=True, batch_size=1)
    assert chosen_ids(chunks, "random+surest") == expected.tolist()


def test_a_joint_one_is_asked_about_all_queries_at_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "CHUNK", 3)
    monkeypatch.setattr(answering, "BATCHES", 1)
    report = evaluated(workspace, methods=("random+odd-ones",), batch_size=1)
    means, ids = chosen_by_hand(workspace)
    assert (
        chosen_ids(report, "random+odd-ones") == np.take_along_axis(ids, OddOnes().order(means)[:, :2], axis=1).tolist()
    )
    digests = []
    for size in (20, 19):
        settings = Settings(Inputs(EvaluateConfig(workspace=workspace, **{**OPTIONS, "test_size": size})))
        joint = Settings(
            Inputs(
                EvaluateConfig(workspace=workspace, **{**OPTIONS, "test_size": size, "methods": ("random+odd-ones",)})
            )
        )
        digests.append([s.groups[0][0].digest for s in (settings, joint)])
    assert digests[0][0] == digests[1][0]
    assert digests[0][1] != digests[1][1]


def test_what_cannot_be_had_together_is_refused(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"random\+surest asks the model which demonstrations to show"):
        evaluated(workspace, permutations=2)
    with pytest.raises(ConfigError, match="surest chooses among the rows of another method"):
        evaluated(workspace, methods=("surest",))


def test_it_stands_beside_others_with_seeds_plans_and_costs(workspace: Path) -> None:
    report = evaluated(
        workspace, methods=("zero-shot", "random", "random+surest"), seeds=(0, 1), cost=True, test_size=6
    )
    assert {(r.method, r.seed) for r in report.results} == {
        *(("zero-shot", 0), ("random", 0), ("random", 1), ("random+surest", 0), ("random+surest", 1))
    }
    assert {r.method for r in report.results if "cost" in r.extra} == {"zero-shot", "random"}
    plan = workspace / "asked.json"
    command = ["export", "plan", "--method", "random+surest", "--seed", "0", "--output", str(plan)]
    assert run([*command, "--workspace", str(workspace), "--quiet"]) == 0
    provenance = json.loads(plan.read_text())["made"]
    assert provenance["method"] == "random+surest"
    replayed = evaluated(workspace, methods=("random",), plans=(plan,), permutations=2, test_size=6)
    assert [r.extra["orders"]["each"][0]["order"] for r in replayed.results if r.method == "asked"] == [1]
    assert chosen_ids(replayed, "asked") == chosen_ids(report, "random+surest")


def killed(workspace: Path, profile: Path) -> int:
    """Evaluates in chunks of four queries, and gets the signal after three. For a process of its own."""
    append, left = answering.PartialAnswers.append, 3

    def counted(part: Any, *arguments: Any) -> None:
        nonlocal left
        append(part, *arguments)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    answering.CHUNK, answering.BATCHES = 4, 1
    answering.PartialAnswers.append = counted  # type: ignore[method-assign]
    return run(["evaluate", "--workspace", str(workspace), "--profile", str(profile), "--quiet"])


def test_a_kill_loses_one_chunk(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = workspace / "p.toml"
    values = {name: list(v) if isinstance(v, tuple) else v for name, v in {**OPTIONS, "batch_size": 4}.items()}
    profile.write_text("[evaluate]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    with Child(lambda: killed(workspace, profile)) as child:
        assert child.wait() == -9, child.err
    monkeypatch.setattr(answering, "CHUNK", 4)
    monkeypatch.setattr(answering, "BATCHES", 1)
    report = evaluated(workspace, batch_size=4)
    text = "\n".join(report.details)
    assert f"{2 * 4 * 8 + 2 * 4} prompts" in text, (
        "two chunks were left, of four queries each: 8 prompts to choose, one to answer"
    )
    [result] = report.results
    assert result.extra["choosing"] == {"prompts": 160}
    means, ids = chosen_by_hand(workspace)
    assert (
        chosen_ids(report, "random+surest") == np.take_along_axis(ids, (-means).argsort(axis=1)[:, :2], axis=1).tolist()
    )
