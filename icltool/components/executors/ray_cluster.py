"""Ray on this machine, started and ended here, or a cluster that runs already, which is only joined."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from icltool.components.executors.ray_folders import new_held, remove_unused
from icltool.errors import ConfigError

#: Seconds within which a cluster must answer: whether the port is open, whether Ray is behind it.
OPENS, ANSWERS = 5.0, 30.0
#: Seconds that processes of a Ray that is shut down have to leave.
_LEAVES = 5.0
#: A socket's path may have 107 characters; Ray's folder and what lies in it take 85 of them.
_SHORT = 20
#: How the names of Ray's folders begin; eight characters follow.
FOLDER = "icltool-ray-"


@dataclass(frozen=True)
class Node:
    """A machine of the cluster and all that it has, whether free or not."""

    id: str
    name: str
    cpus: float
    gpus: float
    accelerator: str = "GPU"

    @property
    def text(self) -> str:
        """ "node-a: 8 x H100", "node-b: cpu (16 cores)"."""
        has = f"{self.gpus:g} x {self.accelerator}" if self.gpus else f"cpu ({self.cpus:g} cores)"
        return f"{self.name}: {has}"


@dataclass(frozen=True)
class Needs:
    """What each worker gets."""

    cpus: float
    gpus: float

    def fit(self, node: Node) -> int:
        """How many workers the whole node has room for."""
        counts = [
            math.floor(has / need + 1e-9) for has, need in ((node.cpus, self.cpus), (node.gpus, self.gpus)) if need
        ]
        return min(counts, default=0)

    @property
    def text(self) -> str:
        return f"{self.gpus:g} GPU{'' if self.gpus == 1 else 's'} and {self.cpus:g} processor{'' if self.cpus == 1 else 's'}"

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))


def needs(nodes: Sequence[Node], cpus: float, gpus: float | None) -> Needs:
    """What each worker gets where nothing is said of GPUs: one, if there is any. Raises ConfigError for 1.5 GPUs."""
    if gpus is None:
        gpus = 1.0 if any(node.gpus for node in nodes) else 0.0
    for option, amount in (("gpus", gpus), ("cpus", cpus)):
        if amount > 1 and amount != int(amount):
            raise ConfigError(
                f"--{option}-per-worker {amount:g}: parts are possible below 1 only",
                "give a whole number, or less than 1",
            )
    return Needs(cpus, gpus)


def worker_count(nodes: Sequence[Node], needed: Needs, requested: int | None) -> int:
    """The number requested; else one for each GPU (or part of one), else one for each node.

    Raises ConfigError where no node can ever hold a single one.
    """
    holding = [node for node in nodes if needed.fit(node)]
    if not holding:
        has = "; ".join(node.text + f", {node.cpus:g} processors" * bool(node.gpus) for node in nodes) or "no node"
        raise ConfigError(
            f"no node of the cluster can hold a worker of {needed.text}; it has {has}",
            "lower --gpus-per-worker or --cpus-per-worker, or take another cluster",
        )
    if requested is not None:
        return requested
    if needed.gpus:
        return max(1, sum(math.floor(node.gpus / needed.gpus + 1e-9) for node in holding))
    return len(holding)


class Cluster:
    """A connection to Ray. `leave` ends it, and with it a Ray that was started for it."""

    def __init__(
        self, local: bool, folder: Path | None = None, roots: Sequence[psutil.Process] = (), held: int | None = None
    ) -> None:
        self.local = local
        # However the process ends, the folder goes; Ray itself ends its processes at exit.
        self._end = weakref.finalize(self, _end, folder, tuple(roots), held)

    def nodes(self, dead: bool = False) -> list[Node]:
        """The machines that are alive now; with `dead` those that were, too."""
        return [_node(state) for state in import_ray().nodes() if dead or state["Alive"]]

    @property
    def own_node(self) -> str:
        """The id of the node that this process is connected through: it runs on this machine."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def leave(self) -> None:
        self._end()


def start_local(devices: Sequence[int], cpus: int) -> Cluster:
    """Starts Ray on this machine, reachable from it alone. `devices` are the GPUs that it gives to workers.

    Raises ConfigError where Ray is not installed or does not start.
    """
    ray = import_ray()
    before = set(psutil.Process().children())
    base = tempfile.gettempdir()
    if len(base) > _SHORT and os.access("/tmp", os.W_OK):
        base = "/tmp"
    remove_unused(Path(base), FOLDER)  # of runs that were killed: Ray's processes ended with them
    folder, held = new_held(Path(base), FOLDER)
    started = {"RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": _visible(devices)}
    try:
        with _environment(started), _own_signals():
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=len(devices),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                _temp_dir=str(folder),
                _node_ip_address="127.0.0.1",
            )
    except BaseException as error:
        _end(folder, tuple(set(psutil.Process().children()) - before), held)
        if isinstance(error, Exception):
            raise ConfigError(
                f"Ray could not be started on this machine: {' '.join(str(error).split())}",
                "`ray start --head` shows more; --executor local works without Ray",
            ) from error
        raise
    return Cluster(True, folder, tuple(set(psutil.Process().children()) - before), held)


def join(address: str) -> Cluster:
    """Connects to a cluster that runs, "auto" or HOST:PORT. Raises ConfigError where nobody answers in time."""
    ray = import_ray()
    place = _address(address)
    hint = "`ray status` on a machine of the cluster tells whether it runs, and its address"
    try:
        with _environment({"RAY_USAGE_STATS_ENABLED": "0"}), _own_signals():
            ray.init(address=place, log_to_driver=False, logging_level=logging.CRITICAL)
    except (Exception, SystemExit) as error:
        with suppress(Exception):
            ray.shutdown()
        raise ConfigError(
            f"cannot join the Ray cluster at {place}: {' '.join(str(error).split())[:300]}",
            f"this machine must be a node of the cluster: `ray start --address={place}` makes it one",
        ) from error
    except BaseException:
        with suppress(Exception):
            ray.shutdown()
        raise
    cluster = Cluster(False)
    if not cluster.nodes():
        cluster.leave()
        raise ConfigError(f"the Ray cluster at {place} has no node that is alive", hint)
    return cluster


def import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("executor ray needs the package ray", "pip install 'icltool[ray]'") from error
    return ray


def _address(address: str) -> str:
    """HOST:PORT where a Ray cluster answers. Ray itself would wait for minutes, and then end this process."""
    if "://" in address:
        raise ConfigError(
            f"--address {address}: Ray's client is not used",
            "run the command on a node of the cluster, with --address auto or HOST:PORT",
        )
    resolved = address
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        try:
            resolved = canonicalize_bootstrap_address("auto") or ""
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                "--address auto: no Ray cluster runs on this machine",
                "start one with `ray start --head`, or leave --address out: Ray is then started for this command",
            ) from error
    host, _, port = resolved.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"--address {address}: expected auto or HOST:PORT", "Ray's port is 6379 if none was chosen")
    hint = "`ray status` on a machine of the cluster tells whether it runs; its port is 6379 if none was chosen"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=OPENS).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster answers at {resolved} ({error.strerror or error})", hint) from error
    check = [sys.executable, "-c", "import sys, ray._raylet as r; r.GcsClient(address=sys.argv[1])", resolved]
    try:
        answer = subprocess.run(check, timeout=ANSWERS, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{resolved} is not a Ray cluster", hint) from error
    if answer.returncode:
        raise ConfigError(f"{resolved} is not a Ray cluster of this version of Ray", hint)
    return resolved


def _node(state: dict[str, Any]) -> Node:
    resources = state["Resources"]
    name, address = state.get("NodeName") or "", state.get("NodeManagerAddress")
    kinds = [key.partition(":")[2] for key in resources if key.startswith("accelerator_type:")]
    return Node(
        state["NodeID"],
        name if name and name != address else state.get("NodeManagerHostname") or str(address),
        float(resources.get("CPU", 0.0)),
        float(resources.get("GPU", 0.0)),
        kinds[0] if kinds else "GPU",
    )


def _visible(devices: Sequence[int]) -> str:
    """CUDA_VISIBLE_DEVICES for these; where it is set, they are places in it, as in torch."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return ",".join(visible[device] if device < len(visible) else str(device) for device in devices)


def _end(folder: Path | None, roots: Sequence[psutil.Process], held: int | None = None) -> None:
    """Leaves Ray; of one that was started here, no process and no file remains."""
    import ray

    processes = list(roots)
    for root in roots:
        with suppress(psutil.Error):
            processes += root.children(recursive=True)
    with suppress(Exception), _own_signals():
        ray.shutdown()
    _, alive = psutil.wait_procs(processes, timeout=_LEAVES)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=_LEAVES)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    if held is not None:
        os.close(held)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """The variables have these values within it: processes that are started in it keep them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _own_signals() -> Iterator[None]:
    """Puts this process's handlers back afterwards: ray.init replaces that of SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
