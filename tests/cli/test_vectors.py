"""`icltool evaluate --vectors`: one clear line for every file that does not fit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from icltool.cli.app import run
from icltool.commands.evaluate import costs
from icltool.components.models.idefics.idefics import IdeficsModel
from tests.cli.test_bad_input import refusal
from tests.commands.evaluate.vectors import vectors

EVALUATE = ["evaluate", "--model=tiny-idefics", "--device=cpu", "--task=vqa", "--test-size=6"]


def files(folder: Path, model: IdeficsModel) -> dict[str, Path]:
    """Files that do not fit, by what is wrong."""
    good = vectors(folder / "good.safetensors", model, 0.1)
    (folder / "text").write_text("vectors")
    (folder / "cut").write_bytes(good.read_bytes()[:-100])
    save_file({"vectors": torch.zeros(4, 128)}, folder / "other")
    return {
        "missing": folder / "missing",
        "text": folder / "text",
        "cut": folder / "cut",
        "other": folder / "other",
        "folder": folder,
        "layers": vectors(folder / "layers", model, 0.1, sites=32, name="idefics-9b"),
        "width": vectors(folder / "width", model, 0.1, width=64),
        "weights": vectors(folder / "weights", model, 0.1, weights="0"),
    }


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("missing", ["missing does not exist", "icltool train"]),
        ("text", ["text is not an intervention file"]),
        ("cut", ["cut is not an intervention file"]),
        ("other", ["other is not an intervention file: it contains other weights"]),
        ("folder", ["holds no last.safetensors"]),
        ("layers", ["was trained for idefics-9b (layers: 32), not for tiny-idefics (layers: 4)"]),
        ("width", ["(hidden size: 64)"]),
        ("weights", ["was trained for other weights"]),
    ],
)
def test_files_that_do_not_fit(
    wrong: str,
    words: list[str],
    workspace: Path,
    tiny_model: IdeficsModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = files(tmp_path / "files", tiny_model)[wrong]
    err = refusal(capsys, *EVALUATE, "--vectors", str(file), "--workspace", str(workspace))
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "lve"], ["unknown method 'lve'", "did you mean 'live'"]),
        (["--method", "live"], ["no live file for shapes (vqa)", "icltool train"]),
        (["--method", "random", "--vectors", "GOOD"], ["made by live", "add --method live"]),
        (["--method", "live", "--vectors", "GOOD", "--method-option", "live.strenth=2"], ["no option 'strenth'"]),
        (["--vectors", "GOOD", "--method-option", "random.x=2"], ["no method 'random' is evaluated"]),
    ],
)
def test_calls_that_do_not_fit(
    arguments: list[str],
    words: list[str],
    workspace: Path,
    tiny_model: IdeficsModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = str(vectors(tmp_path / "good.safetensors", tiny_model, 0.1))
    options = [good if argument == "GOOD" else argument for argument in arguments]
    err = refusal(capsys, *EVALUATE, *options, "--workspace", str(workspace))
    for word in words:
        assert word in err


def test_tables_fit_a_usual_terminal(
    workspace: Path,
    tiny_model: IdeficsModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")  # 80 columns, no colours
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    folders = [tmp_path / f"live-shapes-vqa-tiny-idefics-{digest}" for digest in ("88b90a0b", "00000001")]
    checkpoints = [vectors(f / "last.safetensors", tiny_model, 0.1, seed=n).parent for n, f in enumerate(folders)]
    options = [*(f"--vectors={folder}" for folder in checkpoints), "--method=random,live", "--shots=1,2"]
    assert run([*EVALUATE, *options, f"--workspace={workspace}"]) == 0
    output = capsys.readouterr().out
    assert [line for line in output.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []
    assert "…" not in output
    assert [line for line in output.splitlines() if line.startswith("live-88b90a0b ")]
    assert "x FLOPs" in output
    err = refusal(capsys, "export", "chat", "--method", "live-88b90a0b", f"--workspace={workspace}")
    assert "live-88b90a0b is an intervention" in err


def test_json_has_costs_beside_the_metric(
    workspace: Path,
    tiny_model: IdeficsModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(costs, "SAMPLE", 2)
    good = vectors(tmp_path / "good.safetensors", tiny_model, 0.1)
    arguments = ["--method=random,live", "--shots=2", f"--vectors={good}", "--json", f"--workspace={workspace}"]
    assert run([*EVALUATE, *arguments]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    random, live = content["rows"]
    assert live["cost"]["flops"] < random["cost"]["flops"]
    [other] = live["costs of others"]
    assert other["prompt_tokens"] == pytest.approx(random["cost"]["prompt_tokens"] / live["cost"]["prompt_tokens"])
    assert run(["export", "results", f"--workspace={workspace}", f"--output={tmp_path / 'r.csv'}"]) == 0
    assert "seconds_per_query" in (tmp_path / "r.csv").read_text().splitlines()[0]
