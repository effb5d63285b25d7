"""SIGKILL at any moment: the file opens, nothing finished is lost, and the end is that of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import icltool
from icltool.store.embeddings import EmbeddingFile
from icltool.store.sequences import SequenceFile
from tests.store import killable
from tests.suites import apart

KINDS = ["sequences", "embeddings"]
KILLS = 55


class Killer:
    """Starts writers and kills them; `lost` and `kept` are found by the test."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(icltool.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", killable.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.alive: int | None = None

    def run(self, kill_when: Callable[[list[str]], float | None], **order: Any) -> list[str]:
        """The lines of one writer. It is killed as many seconds as `kill_when(lines)` says after that is not None.

        A writer that finished is killed as well.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        whole = {"pause": 0.0, "close_every": 4, "most": -1, "seed": 0, "die_at": 0, **order}
        self.process.stdin.write(json.dumps(whole) + "\n")
        self.process.stdin.flush()
        lines: list[str] = []
        while (line := self.process.stdout.readline().strip()) != "end":
            assert line, "the writers' parent died"
            word, _, rest = line.partition(" ")
            if word == "pid":
                self.alive = int(rest)
                continue
            lines.append(line)
            if self.alive is not None and (line == "finished" or (delay := kill_when(lines)) is not None):
                time.sleep(0 if line == "finished" else delay)
                os.kill(self.alive, signal.SIGKILL)  # not yet waited for by its parent, so the id is still its own
                self.alive = None
        self.alive = None
        return lines

    def close(self) -> None:
        assert self.process.stdin is not None
        if self.alive is not None:
            os.kill(self.alive, signal.SIGKILL)
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    instance = Killer()
    yield instance
    instance.close()


def added(lines: list[str]) -> set[int]:
    return {int(n) for line in lines if line.startswith(("added ", "has ")) for n in line.split(" ")[1].split(",") if n}


def check_stored(kind: str, path: Path) -> set[int]:
    """What readers see, every value compared; plain HDF5 must open too."""
    with h5py.File(path, "r") as file:
        assert file.attrs["schema"] == f"icltool.{kind}"
    if kind == "sequences":
        with SequenceFile.open(path) as stored:
            queries = [result.query_id for result in stored.results()]
            for result in stored.results():
                assert_same(result, killable.result_of(result.query_id))
        assert len(set(queries)) == len(queries)
        return set(queries)
    with EmbeddingFile.open(path) as rows:
        every = range(len(rows))
        if len(rows):
            np.testing.assert_array_equal(rows.ids, killable.ids_of(every))
            for field, expected in killable.features_of(every).items():
                np.testing.assert_array_equal(rows.read(field), expected)
        return set(every)


def assert_same(one: Any, other: Any) -> None:
    for name in type(one).__slots__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def content(path: Path) -> dict[str, Any]:
    """Every byte of every data set, with its type and shape, and every attribute but the time of creation."""
    files: dict[str, Any] = {}
    with h5py.File(path, "r") as file:

        def add(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                files[name] = (item.shape, item.dtype.str, item.chunks, item[...].tobytes())

        file.visititems(add)
        files["attributes"] = {name: value for name, value in file.attrs.items() if name != "created"}
    return files


def uninterrupted(kind: str, folder: Path, total: int) -> Path:
    path = folder / "uninterrupted.h5"
    killable.begin(kind, path, total, total)
    return path


@pytest.mark.reliability
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind: str, memory_path: Path, killer: Killer) -> None:
    draw = random.Random(f"kill {kind}")
    most = 7  # appends before a kill, so that there is something left to do after the last
    total = most * KILLS * (1 if kind == "sequences" else 2)
    path = memory_path / "runs" / "file.h5"
    reported: set[int] = set()
    kills = in_compaction = 0
    while True:
        after, in_closing = draw.randrange(4), draw.random() < 0.5
        delay = draw.uniform(0, 0.012)

        def kill_when(lines: list[str]) -> float | None:
            if kills >= KILLS:  # noqa: B023  (called in this round of the loop only)
                return None
            due = lines[-1] == "closing" if in_closing else len(lines) > after  # noqa: B023
            return delay if due else None  # noqa: B023

        pace = {"pause": 0.004, "most": most} if kills < KILLS else {}
        lines = killer.run(kill_when, kind=kind, path=str(path), total=total, seed=draw.randrange(10**9), **pace)
        if lines:
            assert reported <= added(lines[:1]), "a resumed writer did not find all that was reported"
        reported |= added(lines)
        stored = check_stored(kind, path)
        assert reported <= stored, "a reader did not find all that was reported"
        if lines and lines[-1] == "finished":
            break
        kills += 1
        in_compaction += bool(lines) and lines[-1] == "closing"
    assert kills >= KILLS
    assert in_compaction >= 5
    assert reported == stored == set(range(total))
    assert content(path) == content(uninterrupted(kind, memory_path, total))
    assert sorted(p.name for p in path.parent.iterdir()) == [".file.h5.lock", "file.h5"]


@pytest.mark.parametrize("stored", apart("reliability", [0], [0, 3]))
@pytest.mark.parametrize("kind", KINDS)
def test_killed_before_each_file_operation(kind: str, stored: int, memory_path: Path, killer: Killer) -> None:
    """Every opening, renaming and removal of a short run, of a new file and of one that goes on, is the moment of death once;
    then the run is resumed."""
    total = stored + 3
    expected = content(uninterrupted(kind, memory_path, total))
    begun = memory_path / "begun" / "file.h5"
    if stored:
        killable.begin(kind, begun, total, stored)
    deaths = 0
    for die_at in range(1, 1000):
        path = memory_path / str(die_at) / "file.h5"
        if stored:
            shutil.copytree(begun.parent, path.parent)
        order = {"kind": kind, "path": str(path), "total": total, "close_every": 3}
        lines = killer.run(lambda lines: None, **order, die_at=die_at)
        if lines and lines[-1] == "finished":
            break
        deaths += 1
        reported = added(lines) | set(range(stored))
        if path.exists():
            assert reported <= check_stored(kind, path)
        else:
            assert not reported
        again = killable.written(kind, path, total, total)
        assert reported <= added(again[:1])
        assert content(path) == expected
    assert deaths >= 10
