"""The executor on a real cluster of two nodes on this machine: workers and nodes die, and every unit is done all the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

pytest.importorskip("ray")

from icltool.components.executors import ray_worker_pool
from icltool.components.executors.ray import RayExecutor, RayOptions
from icltool.contracts import FailedUnitsError, UnitFailure
from icltool.errors import ConfigError, IclError
from icltool.testing import check_executor
from tests.components.executors.ray_workers import Done, Make, ReadShipped, Refuse, WithoutImages

if TYPE_CHECKING:
    from tests.components.executors.ray_nodes import TwoNodes

pytest_plugins = ("tests.components.executors.ray_nodes",)
pytestmark = [pytest.mark.reliability, pytest.mark.xdist_group("ray")]
ROOT = Path(__file__).resolve().parents[3]
#: Seconds after which a test that hangs is ended. Nothing else depends on time.
PATIENCE = 120.0


@dataclass
class Until:
    """Units for as long as a condition does not hold, so that a test sees what it waits for on a slow machine too."""

    holds: Callable[[], bool]
    kind: str = "u"
    issued: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[str]:
        end = time.monotonic() + PATIENCE
        while not self.holds():
            assert time.monotonic() < end, "it did not come to pass"
            self.issued.append(f"{self.kind} {len(self.issued)}")
            yield self.issued[-1]


@dataclass
class Eventful:
    """A run in which much goes wrong."""

    folder: Path
    executor: RayExecutor
    units: list[str] = field(default_factory=list)
    results: list[Done] = field(default_factory=list)
    failures: tuple[UnitFailure, ...] = ()
    statuses: set[str] = field(default_factory=set)
    struck: int = 0

    def settled(self) -> bool:
        """Whether all three workers that died have others in their places."""
        return len(loads(self.folder)) == 6 and self.executor.status() == "3 of 3 workers"


UNITS = ("a", "b", "kill c", "once d", "bad e", *(f"slow {k}" for k in range(8)), "kill f", "z")


@pytest.fixture(scope="module")
def eventful(nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> Eventful:
    """Three workers; one kills itself twice, one is killed from outside."""
    folder = tmp_path_factory.mktemp("eventful")
    run = Eventful(folder, RayExecutor(RayOptions(address=nodes.address, workers=3)))
    more = Until(run.settled)
    try:
        for result in run.executor.run(Make(folder), chain(UNITS, more)):
            run.results.append(result)
            run.statuses.add(run.executor.status())
            if not run.struck and result.unit.startswith("slow"):
                run.struck = result.pid
                os.kill(result.pid, signal.SIGKILL)
    except FailedUnitsError as error:
        run.failures = error.failures
    run.units = [*UNITS, *more.issued]
    return run


def loads(folder: Path) -> dict[int, tuple[str, float, float]]:
    """By process: node, begin, end."""
    counts = {}
    for path in folder.glob("load-*"):
        node, begun, ended = path.read_text().split()
        counts[int(path.name.partition("-")[2])] = (node, float(begun), float(ended))
    return counts


def test_every_unit_is_done_once_but_for_the_one_that_cannot_be(eventful: Eventful) -> None:
    assert sorted(r.unit for r in eventful.results) == sorted(set(eventful.units) - {"bad e"})
    assert [(f.unit, f.error, f.tries) for f in eventful.failures] == [("bad e", "ValueError: bad is not good", 3)]
    assert eventful.failures[0].where in ("alpha", "beta")


def test_dead_workers_are_replaced_and_told_of(eventful: Eventful) -> None:
    started = loads(eventful.folder)
    assert len({r.pid for r in eventful.results}) >= 4
    assert len(started) == 6, "three workers and one for each that died"
    text = "\n".join(eventful.executor.notes)
    assert sum(int(n.split()[0]) for n in eventful.executor.notes if "died (killed, or crashed)" in n) == 3
    assert "work was repeated 1 time after: ValueError: once is not good" in text
    assert "work was repeated 2 times after: ValueError: bad is not good" in text
    assert text.count("the session's own note") == 1
    assert all(" of 3 workers" in status for status in eventful.statuses)


def test_both_nodes_work_and_on_each_models_load_one_after_the_other(eventful: Eventful) -> None:
    started = loads(eventful.folder)
    assert len({node for node, _, _ in started.values()}) == 2
    for node in {node for node, _, _ in started.values()}:
        times = sorted((begun, ended) for where, begun, ended in started.values() if where == node)
        assert all(after[0] >= before[1] for before, after in pairwise(times))


def test_workers_are_told_what_comes_before_it_comes(eventful: Eventful) -> None:
    assert all(result.unit in result.announced for result in eventful.results)
    ahead = [result for result in eventful.results if result.announced[-1] != result.unit]
    assert len(ahead) > len(eventful.units) // 2
    for result in eventful.results:
        announced = [unit for unit in result.announced if not unit.startswith(("once", "bad"))]
        assert len(set(announced)) == len(announced), "only of a unit that it failed at a worker is told again"


def test_workers_are_closed_in_the_end_and_their_processes_end(eventful: Eventful) -> None:
    closed = {int(p.name.partition("-")[2]): p.read_text() for p in eventful.folder.glob("closed-*")}
    assert set(closed) <= set(loads(eventful.folder)) - {eventful.struck}
    assert set(closed.values()) == {"True"}
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in loads(eventful.folder)))


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.05)


def test_it_conforms(nodes: TwoNodes) -> None:
    check_executor(RayExecutor(RayOptions(address=nodes.address, workers=2)), units=20)


def test_a_node_that_is_lost_takes_no_unit_with_it(nodes: TwoNodes, tmp_path: Path) -> None:
    executor = RayExecutor(RayOptions(address=nodes.address, workers=4))
    assert executor.describe()["nodes"] == 2
    results: list[Done] = []
    lost, back = "", False
    units = Until(lambda: back and executor.status() == "4 of 4 workers")
    try:
        for result in executor.run(Make(tmp_path, 0.0), units):
            results.append(result)
            if not lost and len({r.node for r in results}) == 2 and executor.status() == "4 of 4 workers":
                lost = nodes.second.node_id
                nodes.lose_second()
            if lost and not back and "2 lost" in executor.status():
                nodes.add_second()
                back = True
    finally:
        nodes.mend()
    assert sorted(r.unit for r in results) == sorted(units.issued)
    died = [note for note in executor.notes if note.startswith("2 workers on beta died")]
    assert len(died) == 1, executor.notes


def pending_notes(executor: RayExecutor) -> list[str]:
    """What will be said once the run that goes on is over."""
    return [] if executor._pool is None else executor._pool.notes.lines()


def test_a_node_without_the_images_spoils_no_unit(nodes: TwoNodes, tmp_path: Path) -> None:
    executor = RayExecutor(RayOptions(address=nodes.address, workers=4))
    units = Until(lambda: any("beta" in line and "could do" in line for line in pending_notes(executor)))
    results = list(executor.run(WithoutImages(tmp_path, nodes.second.node_id), units))
    assert sorted(r.unit for r in results) == sorted(units.issued)
    assert len(list(tmp_path.glob("spoilt-*"))) <= 12
    notes = [note for note in executor.notes if "beta" in note and "could do" in note]
    assert notes, executor.notes
    assert all("no images" in note for note in notes)


def test_a_node_where_the_model_is_missing_does_not_end_a_run_that_works(nodes: TwoNodes, tmp_path: Path) -> None:
    executor = RayExecutor(RayOptions(address=nodes.address, workers=4))
    line = "a worker could not start on beta: ConfigError: no weights on this machine (put them there)"
    units = Until(lambda: line in pending_notes(executor))
    results = list(executor.run(WithoutImages(tmp_path, nodes.second.node_id, "load"), units))
    assert sorted(r.unit for r in results) == sorted(units.issued)
    assert line in executor.notes


def test_workers_that_died_while_they_were_idle_cost_no_tries(nodes: TwoNodes, tmp_path: Path) -> None:
    executor = RayExecutor(RayOptions(address=nodes.address, workers=4))
    before = Until(lambda: executor.status() == "4 of 4 workers")
    results: list[Done] = []
    for result in executor.run(Make(tmp_path, 0.0), chain(before, ["slow one"])):
        results.append(result)
        if before.holds() and len(results) == len(before.issued):  # one is at work, the others have nothing to do
            for pid in loads(tmp_path):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert sorted(r.unit for r in results) == sorted([*before.issued, "slow one"])
    assert len(loads(tmp_path)) > 4
    assert sum(int(n.split()[0]) for n in executor.notes if "died (killed, or crashed)" in n) >= 1


@pytest.mark.parametrize(
    ("how", "kind", "message", "tries"),
    [
        ("config", ConfigError, "no such model", (1, 2)),  # the two nodes may both have tried
        ("value", ValueError, "broken\nweights", (3, 4)),
        ("kill", ConfigError, "workers died 3 times while they loaded on .* most likely memory ran out", (3, 4)),
    ],
)
def test_workers_that_cannot_be_made(
    nodes: TwoNodes, tmp_path: Path, how: str, kind: type[Exception], message: str, tries: tuple[int, ...]
) -> None:
    executor = RayExecutor(RayOptions(address=nodes.address, workers=2))
    with pytest.raises(kind, match=message) as caught:
        list(executor.run(Refuse(tmp_path, how), "ab"))
    assert len(list(tmp_path.glob("tried-*"))) in tries
    if how == "config":
        assert isinstance(caught.value, IclError)
        assert caught.value.hint == "give another one"


def test_a_pending_worker_does_not_hold_up_the_others(nodes: TwoNodes, tmp_path: Path) -> None:
    executor = RayExecutor(RayOptions(address=nodes.address, workers=6, cpus_per_worker=2))
    statuses: list[str] = []
    units = Until(lambda: "2 of 6 workers, 4 starting" in statuses)
    for _ in executor.run(Make(tmp_path, 0.0), chain(units, "abcd")):
        statuses.append(executor.status())
    assert len(statuses) == len(units.issued) + 4
    with pytest.raises(
        ConfigError, match=r"no node of the cluster can hold a worker of 1 GPU and 1 processor; it has .*alpha: cpu"
    ):
        list(RayExecutor(RayOptions(address=nodes.address, gpus_per_worker=1)).run(Make(tmp_path), "ab"))


def test_a_full_cluster_is_waited_for_and_said(
    nodes: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray_worker_pool, "PATIENCE", 0.5)
    executor = RayExecutor(RayOptions(address=nodes.address, workers=1, cpus_per_worker=2))
    said: list[str] = []
    results = executor.run(Make(tmp_path, 0.0), ["a"])
    executor._open()  # the cluster is full before the run begins
    holders = [ray.remote(Holder).options(num_cpus=2, scheduling_strategy="SPREAD").remote() for _ in range(2)]
    ray.get([holder.ready.remote() for holder in holders])

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            ray.kill(holders[0])

    executor.say = say
    assert len(list(results)) == 1
    assert len(said) >= 2
    assert (
        said[0] == "no worker can be placed: no node of the cluster has 0 GPUs and 2 processors free; waiting for one"
    )
    assert executor.notes.count(said[0]) == 1


class Holder:
    """Takes room."""

    def ready(self) -> None:
        """Nothing."""


def test_files_are_shipped_once_to_each_node(nodes: TwoNodes, tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "inside.bin").write_bytes(bytes(100_000))
    (tmp_path / "file.txt").write_text("text ")
    executor = RayExecutor(RayOptions(address=nodes.address, workers=4))
    shipped = executor.ship({"file": tmp_path / "file.txt", "folder": tmp_path / "folder"})
    results: list[tuple[str, str, int, str, str, int]] = []
    for one in executor.run(ReadShipped(shipped), Until(lambda: len({pid for *_, pid in results}) == 4)):
        results.append(one)
    assert {content for *_, content, _, _ in results} == {"text 100000"}
    assert {threads for *_, threads, _ in results} == {"1"}
    copies = {(node, path, inode) for node, path, inode, *_ in results}
    assert len(copies) == 2, "one for each node, whatever the number of its workers"
    home = [path for _, path, _ in copies if path == str(tmp_path / "file.txt")]
    away = [path for _, path, _ in copies if path != str(tmp_path / "file.txt")]
    assert (len(home), len(away)) == (1, 1)
    assert Path(away[0]).name == "file.txt"
    wait_until(lambda: not Path(away[0]).exists())


def folder_of_ray(processes: list[psutil.Process]) -> Path:
    """Where the Ray whose processes these are keeps its files."""
    names = " ".join(" ".join(process.cmdline()) for process in processes)
    assert "raylet" in names
    [folder] = set(re.findall(r"(/tmp/icltool-ray-\w{8})/session_", names))
    return Path(folder)


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_run_that_is_interrupted_ends_the_ray_that_it_started(nodes: TwoNodes, tmp_path: Path) -> None:
    others = set(psutil.Process().children(recursive=True))  # the cluster that all tests share goes on
    executor = RayExecutor(RayOptions(workers=2))
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    results: list[Done] = []
    started: list[psutil.Process] = []
    folders: list[Path] = []

    def units() -> Iterator[str]:
        yield from Until(lambda: bool(results))
        started.extend(set(psutil.Process().children(recursive=True)) - others)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
        signal.raise_signal(signal.SIGINT)
        yield "never"

    def work() -> None:
        for result in executor.run(Make(tmp_path, 0.0), units()):
            results.append(result)
            folders.append(folder_of_ray(list(set(psutil.Process().children(recursive=True)) - others)))
            assert folders[-1].is_dir()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert {result.pid for result in results} <= {process.pid for process in started}
    wait_until(lambda: all(gone(process) for process in started))
    assert not any(folder.exists() for folder in folders)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


_DRIVER = """
import os, sys, signal
from pathlib import Path
from icltool.cli.boundary import guarded
from icltool.components.executors.ray import RayOptions, RayExecutor
from tests.components.executors.ray_workers import Make

def work():
    before = signal.getsignal(signal.SIGTERM)
    for result in RayExecutor(RayOptions(workers=2)).run(Make(Path(sys.argv[1]), 0.0), (f"slow {k}" for k in range(1000))):
        assert signal.getsignal(signal.SIGTERM) is before
        print(result.pid, flush=True)

sys.exit(guarded(work))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, number: int, code: int) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert run.stdout is not None
        assert run.stdout.readline(), run.stderr.read() if run.stderr else ""
        processes = psutil.Process(run.pid).children(recursive=True)
        folder = folder_of_ray(processes)
        os.kill(run.pid, number)
        _, errors = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
    assert run.returncode == code, errors
    assert errors == "interrupted; finished work is kept: run the same command to resume\n"
    wait_until(lambda: all(gone(process) for process in processes))
    assert not folder.exists()
