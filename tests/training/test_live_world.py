"""LIVE on the embedded world, by its profile: it must beat zero-shot beyond chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.cli.app import run
from icltool.store.evaluations import MetricResult, read_results


@pytest.mark.slow
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
    found: dict[str, MetricResult] = {r.method: r.metrics["word-accuracy"] for r in read_results(folder)[0]}
    zero, live = found["zero-shot"], found["live"]
    with capsys.disabled():
        told = "; ".join(f"{name} {m.mean:.1f} [{m.low:.1f}, {m.high:.1f}]" for name, m in found.items())
        print(f"\nword accuracy of captions: {told}")
    assert live.low > zero.high
