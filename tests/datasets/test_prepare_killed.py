"""`icltool prepare` killed at any time, from zip archives: the next run gives what an undisturbed one gives."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from icltool.config.prepare import PrepareConfig
from icltool.execution.progress import SilentProgress
from icltool.stages.prepare import run
from icltool.store.records import open_dataset
from tests.datasets.builders import KARPATHY, pack, write_karpathy

#: Prepares in a process that kills itself when the given piece of work has begun or advances.
PROGRAM = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from icltool.config.prepare import PrepareConfig
from icltool.execution.progress import SilentProgress
from icltool.stages.prepare import run

class Killer(SilentProgress):
    left = int(sys.argv[3])

    def strike(self, amount=1):
        Killer.left -= 1
        if Killer.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def task(self, description, total, unit, done=0):
        self.strike()
        yield self
        self.strike()

    advance = strike

    def note(self, text):
        pass

run(PrepareConfig(workspace=Path(sys.argv[1]), name="coco-karpathy", root=Path(sys.argv[2])), Killer())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
@pytest.mark.slow
def test_killed_and_run_again(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path / "data")
    pack(root / "coco-karpathy" / "caption_datasets.zip", root / "coco-karpathy" / "dataset_coco.json")
    for part in ("train2014", "val2014"):
        pack(root / "mscoco" / "mscoco2014" / f"{part}.zip", root / "mscoco" / "mscoco2014" / part)
    whole = run(PrepareConfig(workspace=tmp_path / "whole", name="coco-karpathy", root=root), SilentProgress())
    killed = tmp_path / "killed"
    folder = killed / "datasets" / "coco-karpathy"
    for strike, left in ((7, 1), (9, 1)):  # while writing train; while writing validation
        command = [sys.executable, "-c", PROGRAM, str(killed), str(root), str(strike)]
        assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
        assert not (folder / "caption").exists()
        assert len(list(folder.glob(".caption.*.tmp"))) == left
    again = run(PrepareConfig(workspace=killed, name="coco-karpathy", root=root), SilentProgress())
    assert again.rows() == whole.rows()
    found = open_dataset(folder / "caption")
    assert [len(found.split(name)) for name in ("train", "validation")] == [3, len(KARPATHY["test"])]
    assert not list(folder.glob(".caption.*.tmp"))
    states = run(PrepareConfig(workspace=killed, name="coco-karpathy", root=root), SilentProgress()).states
    assert states == {"caption": "up to date"}
