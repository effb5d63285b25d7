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
from icltool.report.intervals import paired_difference
from icltool.store.evaluations import SettingResult, predictions_file, read_predictions, read_results

pytestmark = [pytest.mark.slow, pytest.mark.benchmark]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """(workspace of a finished demo, its seconds)."""
    workspace = tmp_path_factory.mktemp("demo")
    began = time.perf_counter()
    assert run(["demo", "--workspace", str(workspace)]) == 0
    return workspace, time.perf_counter() - began


def evaluation(workspace: Path) -> tuple[Path, dict[tuple[str, int], SettingResult]]:
    [folder] = (workspace / "evaluations").iterdir()
    return folder, {(r.method, r.shots): r for r in read_results(folder)[0]}


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
