"""`icltool prepare` killed at any time, from zip archives: the next run gives what an undisturbed one gives."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from icltool.commands.prepare.options import PrepareConfig
from icltool.commands.prepare.run import PrepareReport, run
from icltool.contracts import Progress
from icltool.execution.progress import SilentProgress
from icltool.store.records import open_dataset
from tests.components.datasets.builders import KARPATHY, pack, write_karpathy
from tests.processes import Child


class Killer(SilentProgress):
    """Kills the process when the given piece of work has begun or advances."""

    def __init__(self, left: int) -> None:
        self.left = left

    def strike(self, amount: int = 1) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[Killer]:
        self.strike()
        yield self
        self.strike()

    advance = strike

    def note(self, text: str) -> None:
        pass


def prepare(workspace: Path, root: Path, progress: Progress) -> PrepareReport:
    return run(PrepareConfig(workspace=workspace, name="coco-karpathy", root=root), progress)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
def test_killed_and_run_again(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path / "data")
    pack(root / "coco-karpathy" / "caption_datasets.zip", root / "coco-karpathy" / "dataset_coco.json")
    for part in ("train2014", "val2014"):
        pack(root / "mscoco" / "mscoco2014" / f"{part}.zip", root / "mscoco" / "mscoco2014" / part)
    whole = prepare(tmp_path / "whole", root, SilentProgress())
    killed = tmp_path / "killed"
    folder = killed / "datasets" / "coco-karpathy"
    for strike, left in ((7, 1), (9, 1)):  # while writing train; while writing validation
        with Child(lambda strike=strike: prepare(killed, root, Killer(strike))) as child:
            assert child.wait() == -signal.SIGKILL, child.err
        assert not (folder / "caption").exists()
        assert len(list(folder.glob(".caption.*.tmp"))) == left
    again = prepare(killed, root, SilentProgress())
    assert again.rows() == whole.rows()
    dataset = open_dataset(folder / "caption")
    assert [len(dataset.split(name)) for name in ("train", "validation")] == [3, len(KARPATHY["test"])]
    assert not list(folder.glob(".caption.*.tmp"))
    states = prepare(killed, root, SilentProgress()).states
    assert states == {"caption": "up to date"}
