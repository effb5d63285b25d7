"""The executor on Ray, as far as it needs no cluster: how many workers, what is refused, what survives the way back."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")

from icltool.components.executors.ray import RayExecutor, RayOptions
from icltool.components.executors.ray_cluster import FOLDER, Cluster, Node, needs, worker_count
from icltool.components.executors.ray_folders import IN_USE, remove_unused
from icltool.components.executors.ray_notes import MOST_LINES, RunNotes
from icltool.components.executors.ray_worker import Failure, RayWorker, failure_of
from icltool.contracts import Executor
from icltool.contracts.executor import ReportsNotes, ReportsStatus
from icltool.errors import ConfigError, IclError
from icltool.plugin.manager import component

HEAD, GPUS = Node("1", "head", 4, 0), Node("2", "gpus", 16, 8, "H100")


def test_it_is_the_registered_executor() -> None:
    executor = component("executors", "ray", workers=3)
    assert isinstance(executor, RayExecutor)
    assert isinstance(executor, Executor)
    assert isinstance(executor, ReportsStatus)
    assert isinstance(executor, ReportsNotes)


def test_importing_it_does_not_import_ray() -> None:
    code = (
        "import sys, icltool.components.executors.ray; assert 'ray' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_ray_one_line_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['ray'] = None\n"
        "from icltool.errors import ConfigError\n"
        "from icltool.plugin.manager import component\n"
        "try:\n    component('executors', 'ray')\n"
        "except ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "executor ray needs the package ray (pip install 'icltool[ray]')\n"


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "requested", "count"),
    [
        ([HEAD], 1, None, None, 1),
        ([HEAD, HEAD], 1, None, None, 2),
        ([HEAD, GPUS], 1, None, None, 8),
        ([GPUS, GPUS], 2, None, None, 16),
        ([HEAD, GPUS], 1, 0.5, None, 16),
        ([HEAD, GPUS], 1, 3, None, 2),
        ([HEAD, GPUS], 1, 0, None, 2),
        ([HEAD, GPUS], 8, 0, None, 1),
        ([HEAD, GPUS], 1, None, 3, 3),
        ([GPUS], 1, None, 12, 12),
    ],
)
def test_the_number_of_workers(nodes: list[Node], cpus: float, gpus: float, requested: int, count: int) -> None:
    assert worker_count(nodes, needs(nodes, cpus, gpus), requested) == count


def test_what_no_node_can_hold_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        worker_count([HEAD], needs([HEAD], 1, 1), None)
    assert caught.value.message == (
        "no node of the cluster can hold a worker of 1 GPU and 1 processor; it has head: cpu (4 cores)"
    )
    with pytest.raises(ConfigError, match=r"of 1 GPU and 32 processors; it has .*gpus: 8 x H100, 16 processors"):
        worker_count([HEAD, GPUS], needs([HEAD, GPUS], 32, None), None)
    with pytest.raises(ConfigError, match=r"--gpus-per-worker 1\.5"):
        needs([GPUS], 1, 1.5)


def test_devices_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H100")
    described = RayExecutor(RayOptions(devices=(0, 1))).describe()
    assert (described["workers"], described["nodes"]) == (2, 1)
    assert described["devices"][0].endswith(": 2 x H100")
    assert RayExecutor(RayOptions(devices=(1,), workers=2, gpus_per_worker=0.5)).describe()["workers"] == 2
    with pytest.raises(ConfigError, match="--devices 2: this machine has GPUs 0 to 1"):
        RayExecutor(RayOptions(devices=(0, 2))).describe()
    with pytest.raises(ConfigError, match="names GPU 0 twice"):
        RayExecutor(RayOptions(devices=(0, 0))).describe()
    with pytest.raises(ConfigError, match="3 workers of 1 GPU and 1 processor each: this machine gives 2") as caught:
        RayExecutor(RayOptions(workers=3)).describe()
    assert (caught.value.hint or "").endswith("--gpus-per-worker to 0.66")
    with pytest.raises(ConfigError, match="use one of them"):
        RayExecutor(RayOptions(devices=(0,), address="auto"))


_HOLDS = """
import sys, time
from pathlib import Path
from icltool.components.executors.ray_folders import new_held
print(new_held(Path(sys.argv[1]), "icltool-ray-")[0], flush=True)
time.sleep(60)
"""


def test_folders_of_killed_runs_are_removed_and_no_others(tmp_path: Path) -> None:
    base, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    for folder in ("icl2024-workshop", "icl999999-abc", "icltool-ray-no-lock", "icltool-rays"):
        (base / folder / "session").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / IN_USE).touch()
    (base / "icltool-ray-link").symlink_to(elsewhere)
    (base / "icltool-ray-linked-lock").mkdir()
    (base / "icltool-ray-linked-lock" / IN_USE).symlink_to(elsewhere / IN_USE)
    strange = {path.name for path in base.iterdir()}
    with subprocess.Popen([sys.executable, "-c", _HOLDS, str(base)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        held = Path(run.stdout.readline().strip())
        (held / "session").mkdir()
        remove_unused(base, FOLDER)
        assert {path.name for path in base.iterdir()} == {*strange, held.name}
        run.kill()
    remove_unused(base, FOLDER)
    assert {path.name for path in base.iterdir()} == strange
    assert (elsewhere / IN_USE).exists()


def test_another_users_folders_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "icltool-ray-abc").mkdir()
    (tmp_path / "icltool-ray-abc" / IN_USE).touch()
    with monkeypatch.context() as other:
        other.setattr(os, "geteuid", lambda: os.getuid() + 1)
        remove_unused(tmp_path, FOLDER)
    assert (tmp_path / "icltool-ray-abc").exists()
    remove_unused(tmp_path, FOLDER)
    assert not (tmp_path / "icltool-ray-abc").exists()


@pytest.mark.parametrize("how", ["no units", "never begun", "forgotten"])
def test_what_ship_started_ends_with_the_run(tmp_path: Path, how: str) -> None:
    class Open(Cluster):
        left = False

        def leave(self) -> None:
            self.left = True

    executor = RayExecutor(RayOptions())
    executor._cluster = cluster = Open(True)
    results = executor.run(RayWorker, [] if how == "no units" else [1])  # type: ignore[arg-type]
    if how == "no units":
        assert list(results) == []
    elif how == "never begun":
        results.close()  # type: ignore[attr-defined]
    del results
    gc.collect()
    assert cluster.left


def test_what_cannot_be_expected_is_said_by_its_own_unit() -> None:
    class Reader:
        def expect(self, unit: int) -> None:
            if unit == 2:
                raise ValueError("no such image")

        def __call__(self, unit: int) -> int:
            self.expect(unit)
            return unit

    worker = RayWorker(".")
    worker._worker = Reader()
    assert worker.work(1, False, (2,)) == (1,)
    failure = worker.work(2, True, ())
    assert isinstance(failure, Failure)
    assert failure.line == "ValueError: no such image"


def test_what_is_told_in_the_end_fits_on_a_page() -> None:
    notes = RunNotes()
    for unit in range(1000):
        notes.repeat(f"ValueError: {unit} {'x' * 1000}")
        notes.repeat("OSError: the same")
        notes.death("node", f"cause {unit}")
        notes.line(f"line {unit}")
    lines = notes.lines()
    assert len(lines) <= 3 * (MOST_LINES + 1)
    assert max(map(len, lines)) < 400
    assert "work was repeated 1,000 times after: OSError: the same" in lines
    assert "... and 981 more repetitions after other errors" in lines


def test_no_units_start_nothing() -> None:
    assert list(RayExecutor(RayOptions(address="127.0.0.1:1")).run(RayWorker, [])) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("localhost", "expected auto or HOST:PORT"),
        ("localhost:http", "expected auto or HOST:PORT"),
        ("no-such-host.invalid:6379", "no Ray cluster answers at no-such-host.invalid:6379"),
        ("ray://localhost:10001", "Ray's client is not used"),
    ],
)
def test_addresses_where_nobody_answers(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RayExecutor(RayOptions(address=address)).describe()


def test_something_else_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icltool.components.executors.ray_cluster.ANSWERS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} is not a Ray cluster"):
            RayExecutor(RayOptions(address=f"127.0.0.1:{port}")).describe()


def test_another_version_of_ray_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(
        "icltool.components.executors.ray_cluster.subprocess", SimpleNamespace(run=run, DEVNULL=subprocess.DEVNULL)
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(ConfigError, match=r" is not a Ray cluster of this version of Ray"),
    ):
        RayExecutor(RayOptions(address=f"127.0.0.1:{other.getsockname()[1]}")).describe()


class AwkwardError(IclError):
    """An error whose class does not survive pickle."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} is not {second}", "make them equal")


@pytest.mark.parametrize(
    ("error", "kind", "mendable"),
    [
        (ConfigError("wrong", "right"), ConfigError, True),
        (AwkwardError(1, 2), IclError, True),
        (ValueError("broken\nweights"), ValueError, False),
        (type("Local", (ValueError,), {})("of no module"), RuntimeError, False),
    ],
)
def test_what_survives_of_exceptions(error: Exception, kind: type[Exception], mendable: bool) -> None:
    try:
        raise error
    except Exception as caught:
        failure = failure_of(caught)
    back = failure.exception()
    assert type(back) is kind
    assert failure.mendable is mendable
    assert "\n" not in failure.line
    assert "test_what_survives_of_exceptions" in str(back.__cause__)
    if isinstance(back, IclError):
        assert isinstance(error, IclError)
        assert (back.message, back.hint) == (error.message, error.hint)
