"""The demo, run as a user runs it: what the learned selector gains on the embedded world, printed and held.

python -m pytest tests/benchmarks/test_selection.py -s
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.results.intervals import paired_difference
from icltool.store.evaluations import SettingResult, predictions_file, read_evaluation, read_predictions
from icltool.store.workspace import Workspace

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """(workspace of a finished demo, its seconds)."""
    workspace = tmp_path_factory.mktemp("demo")
    began = time.perf_counter()
    assert run(["demo", "--workspace", str(workspace)]) == 0
    return workspace, time.perf_counter() - began


def evaluation(workspace: Path) -> tuple[Path, dict[tuple[str, int], SettingResult]]:
    [folder] = (workspace / "evaluations").iterdir()
    return folder, {(r.method, r.shots): r for r in read_evaluation(folder).results}


def scores(folder: Path, method: str, shots: int, metric: str) -> tuple[list[float], list[str]]:
    rows = list(read_predictions(predictions_file(folder, method, shots, 0)))
    return [r["scores"][metric] for r in rows], [r["group"] for r in rows]


def test_the_selector_beats_chance_and_keeps_up_with_similarity_search(
    demo: tuple[Path, float], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, seconds = demo
    assert run(["evaluate", "--profile", "demo", "--workspace", str(workspace), "--method", "t2i", "--shots", "4"]) == 0
    folder, results = evaluation(workspace)
    lines = [f"demo: {seconds:.0f} s"]
    for (method, shots), result in sorted(results.items(), key=lambda item: (item[0][1], item[0][0])):
        figures = ", ".join(f"{n} {m.mean:.1f} [{m.low:.1f}, {m.high:.1f}]" for n, m in result.metrics.items())
        lines.append(f"{shots}-shot {method}: {figures}")
    for metric in ("word-accuracy", "cider"):
        for shots in (2, 4):
            ours, random = (results[m, shots].metrics[metric] for m in ("lever-lm", "random"))
            if metric == "word-accuracy":  # CIDEr's intervals are wider; they part in the full world (full_world.py)
                assert ours.low > random.high, f"{shots} shots: {ours} against {random}"
            assert ours.mean > random.high, f"{metric}, {shots} shots: {ours} against {random}"
        best = max(("i2i", "t2i"), key=lambda m: results[m, 4].metrics[metric].mean)
        (ours, groups), (theirs, _) = (scores(folder, m, 4, metric) for m in ("lever-lm", best))
        difference = paired_difference(ours, theirs, groups)
        lines.append(
            f"4-shot lever-lm minus {best}, {metric}: {difference[0]:+.1f} [{difference[1]:+.1f}, {difference[2]:+.1f}]"
        )
        assert difference[2] > 0
    with capsys.disabled():
        print("", *lines, sep="\n")


def test_the_pointer_is_ahead_of_every_other_method_at_two_shots(
    demo: tuple[Path, float], capsys: pytest.CaptureFixture[str]
) -> None:
    """With 95 % intervals by scene, and paired on the same queries; at four shots of chance and similarity search."""
    workspace, _ = demo
    folder, results = evaluation(workspace)
    lines = []
    for shots, others in ((2, ("lever-lm", "random", "i2i", "i2t")), (4, ("random", "i2i", "i2t"))):
        ours, groups = scores(folder, "pointer", shots, "word-accuracy")
        for method in others:
            theirs, _ = scores(folder, method, shots, "word-accuracy")
            mean, low, high = paired_difference(ours, theirs, groups)
            lines.append(f"{shots}-shot pointer minus {method}, word-accuracy: {mean:+.1f} [{low:+.1f}, {high:+.1f}]")
            assert low > 0, lines[-1]
    for method in ("lever-lm", "random", "i2i", "i2t"):
        pointer, other = (results[m, 2].metrics["word-accuracy"] for m in ("pointer", method))
        assert pointer.low > other.high, f"2 shots: {pointer} against {method}'s {other}"
    with capsys.disabled():
        print("", *lines, sep="\n")


def test_the_pointer_serves_other_index_sets_without_training(
    demo: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other images of the same world, and half as many."""
    workspace, _ = demo
    folder = Workspace(workspace).newest_checkpoint("pointer", "shapes", "caption")
    away = ["--workspace", str(tmp_path / "other")]
    options = [f"--option={o}" for o in ("index_images=182", "validation_images=120", "renderings=1")]
    assert run(["prepare", "shapes", "--task", "caption", *away, *options]) == 0
    assert run(["embed", "--profile", "demo", *away]) == 0
    command = ["evaluate", "--profile", "demo", *away, "--method", "random,i2i,pointer", "--shots", "2"]
    assert run([*command, "--method-option", f"pointer.folder={folder}"]) == 0
    there, _ = evaluation(tmp_path / "other")
    ours, groups = scores(there, "pointer", 2, "word-accuracy")
    for method in ("random", "i2i"):
        mean, low, high = paired_difference(ours, scores(there, method, 2, "word-accuracy")[0], groups)
        with capsys.disabled():
            print(f"\nelsewhere, 2-shot pointer minus {method}, word-accuracy: {mean:+.1f} [{low:+.1f}, {high:+.1f}]")
        assert low > 0 or (method == "i2i" and mean > 0)


def test_the_demo_again_repeats_nothing(demo: tuple[Path, float], capfd: pytest.CaptureFixture[str]) -> None:
    workspace, seconds = demo
    capfd.readouterr()
    began = time.perf_counter()
    assert run(["demo", "--workspace", str(workspace), "--json"]) == 0
    again = time.perf_counter() - began
    out = capfd.readouterr().out
    content: dict[str, Any] = json.loads(out)
    assert Path(content["figure"]).read_bytes().startswith(b"\x89PNG")
    assert again < seconds / 5
    assert run(["demo", "--workspace", str(workspace)]) == 0
    assert capfd.readouterr().out.count("up to date") >= 5
