"""Damaged and hostile files given to every command that reads them: one line, or it goes on; nothing runs, nothing hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.fuzzer import TARGETS

pytestmark = [pytest.mark.reliability, pytest.mark.skipif(sys.platform != "linux", reason="forks and limits of Linux")]
#: Inputs for each target. More: INPUTS=600.
INPUTS = int(os.environ.get("INPUTS", "40"))


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_does_more_than_be_refused(target: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.reliability.fuzzer", str(tmp_path / "place"), target, str(INPUTS), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    inputs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(inputs) == INPUTS
    assert {entry["code"] for entry in inputs} <= {"0", "2"}
    assert any(entry["code"] == "2" for entry in inputs) or target == "environment"
    assert [entry for entry in inputs if entry["fault"]] == []
