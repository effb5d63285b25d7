"""Whole stages killed at any file operation: nothing stored is lost or unreadable, and the same command finishes the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import compiled
from tests.reliability.killer import STAGES

pytestmark = [
    pytest.mark.reliability,
    pytest.mark.skipif(sys.platform != "linux", reason="crashfs is for Linux"),
]
#: Trials of each stage; each has up to three kills. More: TRIALS=80.
TRIALS = int(os.environ.get("TRIALS", "8"))
#: What a kill leaves and the next run does not need: `icltool clean --leftovers` takes it.
_LEFT_FOR_CLEAN = ("exports/", "captions/", "report", ".removed.")


@pytest.fixture(scope="module")
def crashfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(Path(__file__).with_name("crashfs.c"), tmp_path_factory.mktemp("crashfs"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_is_gone_on_with(stage: str, crashfs: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(crashfs), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "tests.reliability.killer", str(tmp_path / "slot"), stage, str(TRIALS), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    first, *trials = map(json.loads, done.stdout.splitlines())
    assert first["code"] == 0
    assert first["hidden"] == []
    assert len(trials) == TRIALS
    assert sum(trial["kills"] for trial in trials) >= TRIALS // 2
    assert [problem for trial in trials for problem in trial["problems"]] == []
    left = {name for trial in trials for name in trial["hidden"] if not any(part in name for part in _LEFT_FOR_CLEAN)}
    assert left == set()
