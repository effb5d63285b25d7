"""LIVE on the embedded world, by its profile: that it runs, and that it beats zero-shot beyond chance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from icltool.cli.app import run
from icltool.components.interventions.files import WEIGHTS, read_intervention
from icltool.store.evaluations import MetricResult, predictions_file, read_evaluation, read_predictions


def test_the_profile_in_a_few_steps(workspace: Path) -> None:
    home = ["--workspace", str(workspace), "--profile", "live-shapes", "--quiet"]
    few = ("shots=2", "max_train_size=16", "epochs=4", "batch_size=8")
    assert run(["train", *home, *(f"--option={option}" for option in few)]) == 0
    (record,) = (workspace / "checkpoints").glob("live-shapes-caption-tiny-idefics-*/training.json")
    content = json.loads(record.read_text())
    assert content["identity"]["options"]["lr"] == 3e-2
    assert [epoch["step"] for epoch in content["history"]] == [2, 4, 6, 8]
    assert content["history"][-1]["loss"] < content["history"][1]["loss"], "of the same demonstrations"
    assert read_intervention(record.parent / WEIGHTS).numbers == 4 * 128 + 4
    assert run(["evaluate", *home, "--method", "zero-shot,live", "--test-size", "8", "--no-cost"]) == 0
    (folder,) = (path for path in (workspace / "evaluations").iterdir() if path.is_dir())
    results = read_evaluation(folder).results
    assert [(r.method, r.shots, r.queries) for r in results] == [("zero-shot", 0, 8), ("live", 0, 8)]
    plain, steered = (read_predictions(predictions_file(folder, r.method, 0, 0)) for r in results)
    assert [row["prompt"] for row in plain] == [row["prompt"] for row in steered]
    assert [row["raw"] for row in plain] != [row["raw"] for row in steered]


@pytest.mark.training
def test_live_beats_zero_shot_with_intervals_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Vectors from an 8-shot teacher, 400 queries, intervals clustered by scene. It also trains in well under a minute on one
    quiet core; no time is asserted. `python -m tests.benchmarks.live_world` compares everything."""
    home = ["--workspace", str(tmp_path), "--profile", "live-shapes"]
    for command in (
        ["prepare", *home],
        ["train", *home],
        ["evaluate", *home, "--method", "zero-shot,live", "--metric", "word-accuracy", "--no-cost"],
    ):
        assert run([*command, "--quiet"]) == 0
    (folder,) = (tmp_path / "evaluations").iterdir()
    metrics: dict[str, MetricResult] = {r.method: r.metrics["word-accuracy"] for r in read_evaluation(folder).results}
    zero, live = metrics["zero-shot"], metrics["live"]
    with capsys.disabled():
        message = "; ".join(f"{name} {m.mean:.1f} [{m.low:.1f}, {m.high:.1f}]" for name, m in metrics.items())
        print(f"\nword accuracy of captions: {message}")
    assert live.low > zero.high
