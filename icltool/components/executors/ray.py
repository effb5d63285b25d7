"""The executor that spreads units over the GPUs of a machine, or over the machines of a Ray cluster."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

from pydantic import Field, model_validator

from icltool.components.executors.ray_cluster import (
    Cluster,
    Needs,
    Node,
    import_ray,
    join,
    needs,
    start_local,
    worker_count,
)
from icltool.components.executors.ray_worker_pool import WorkerPool
from icltool.components.executors.shipping import Shipped, ship_files, sweep
from icltool.components.executors.unit_queue import UnitQueue
from icltool.contracts import FailedUnitsError, Options
from icltool.contracts.executor import ReportsStatus
from icltool.contracts.json import Json
from icltool.engine.devices import usable_cores
from icltool.errors import ConfigError

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class RayOptions(Options):
    """Which cluster, and how many workers."""

    devices: tuple[int, ...] | None = Field(
        None, description="GPUs of this machine, with one worker on each; default: all of them"
    )
    address: str | None = Field(None, description="running Ray cluster to join: HOST:PORT, or auto")
    workers: int | None = Field(
        None, description="number of workers; default: as many as the GPUs can hold, or one per machine without GPUs"
    )
    gpus_per_worker: float | None = Field(
        None, description="GPUs per worker, or a fraction of one; default: 1 if the cluster has GPUs, else 0"
    )
    cpus_per_worker: float = Field(1.0, description="CPU cores, and therefore threads, per worker")

    @model_validator(mode="after")
    def _check_place(self) -> RayOptions:
        if self.devices and self.address is not None:
            raise ConfigError("--devices names GPUs of this machine, --address another cluster", "use one of them")
        return self


class RayExecutor:
    """Workers are Ray actors, each with its model. Results come in order of completion.

    Without an address Ray is started on this machine, and ended after each run; with one the cluster is joined, and left as
    it was. On one node models load one after the other.

    A unit whose worker raises an exception, dies, or loses its machine is repeated, preferably by another worker, and fails
    after three attempts; the run goes on and ends with FailedUnitsError. Workers that die are replaced.

    `say`, if set, prints lines that cannot wait until the run is over.
    """

    options_model = RayOptions

    def __init__(self, options: RayOptions) -> None:
        import_ray()
        self._devices, self._address, self._workers = options.devices, options.address, options.workers
        self._gpus, self._cpus = options.gpus_per_worker, options.cpus_per_worker
        self._cluster: Cluster | None = None
        self._pool: ReportsStatus | None = None
        self._described: dict[str, Json] | None = None
        self._shipped: list[Shipped] = []
        self._status = ""
        self.notes: list[str] = []
        self.say: Callable[[str], object] | None = None

    def run(self, make_worker: Callable[[], Callable[[Unit], Result]], units: Iterable[Unit]) -> Iterator[Result]:
        """Yields results as they come; at most two units for each worker are taken from `units` before they are due.

        Raises ConfigError if no worker can be placed or started, an error of `make_worker` that the user has to mend, and
        FailedUnitsError at the end.
        """
        results = self._results(make_worker, units)
        next(results)  # begun: closing it, or forgetting it, ends what `ship` started
        return cast("Iterator[Result]", results)

    def _results(
        self, make_worker: Callable[[], Callable[[Unit], Result]], units: Iterable[Unit]
    ) -> Iterator[Result | None]:
        """None, before anything is done, and the results."""
        try:
            yield None
            queue = UnitQueue(units)
            if not queue.waiting:
                return
            cluster = self._open()
            nodes = self._nodes()
            needed = needs(nodes, self._cpus, self._gpus)
            count = self._count(nodes, needed)
            count = min(count, queue.available(count))  # less work than workers: the others would load for nothing
            pool = WorkerPool(cluster, needed, count, queue, make_worker, self._tell)
            self._pool = pool
            try:
                yield from pool.results()
                self._note(pool.finish())
            finally:
                self._status = pool.status()
                self._note(pool.notes.lines())
                self._pool = None
                pool.kill()
        finally:
            self.close()
        if queue.failures:
            raise FailedUnitsError(queue.failures)

    def describe(self) -> dict[str, Json]:
        """Workers, nodes and their devices. Starts nothing on this machine; joins the cluster of an address."""
        if self._described is None:
            if self._address is not None:
                self._open()
            nodes = self._nodes()
            count = self._count(nodes, needs(nodes, self._cpus, self._gpus))
            devices = [node.text for node in nodes]
            self._described = {"executor": "ray", "workers": count, "nodes": len(nodes), "devices": devices}
        return dict(self._described)

    def status(self) -> str:
        """ "7 of 8 workers, 1 loading"; after a run its last state."""
        pool = self._pool
        return self._status if pool is None else pool.status()

    def ship(self, paths: Mapping[str, Path]) -> Shipped:
        """Puts files and folders into Ray's object store, once: workers read them where there is no shared disk.

        To be called before `run`, which makes it part of what `make_worker` holds. They are gone after that run.
        """
        cluster = self._open()
        shipped = ship_files(paths, cluster.own_node, here_only=cluster.local)
        self._shipped.append(shipped)
        return shipped

    def close(self) -> None:
        """Leaves the cluster, or ends the Ray that was started here. A run does it by itself."""
        cluster, self._cluster = self._cluster, None
        if cluster is None:
            return
        shipped, self._shipped = self._shipped, []
        try:
            if shipped and not cluster.local:
                with suppress(Exception):  # what a node keeps, the next run sweeps up
                    sweep(shipped, [n.id for n in cluster.nodes() if n.id != cluster.own_node])
        finally:
            cluster.leave()

    def _open(self) -> Cluster:
        if self._cluster is None:
            if self._address is not None:
                self._cluster = join(self._address)
            else:
                nodes = self._nodes()
                count = self._count(nodes, needs(nodes, self._cpus, self._gpus))
                self._cluster = start_local(self._own_devices(), _processors(count, self._cpus))
        return self._cluster

    def _nodes(self) -> list[Node]:
        """The machines of the cluster; of a Ray that is started here, what this machine will give."""
        if self._address is not None:
            return self._open().nodes()
        devices = self._own_devices()
        kind = "GPU"
        if devices:
            import torch

            kind = torch.cuda.get_device_name(devices[0])
        cores = _processors(self._workers or len(devices) or 1, self._cpus)
        return [Node("", socket.gethostname(), float(cores), float(len(devices)), kind)]

    def _count(self, nodes: Sequence[Node], needed: Needs) -> int:
        count = worker_count(nodes, needed, self._workers)
        if self._address is None and needed.gpus and count > needed.fit(nodes[0]):
            raise ConfigError(
                f"{count} workers of {needed.text} each: this machine gives {nodes[0].gpus:g}",
                f"lower --workers, or --gpus-per-worker to {math.floor(100 * nodes[0].gpus / count) / 100:g}",
            )
        return count

    def _own_devices(self) -> tuple[int, ...]:
        """The GPUs of this machine that are meant. Raises ConfigError naming one that is not there."""
        import torch

        there = torch.cuda.device_count()
        if self._devices is None:
            return tuple(range(there))
        has = "no GPU" if not there else "GPU 0" if there == 1 else f"GPUs 0 to {there - 1}"
        for device in self._devices:
            if not 0 <= device < there:
                raise ConfigError(f"--devices {device}: this machine has {has}", "`icltool doctor` lists its devices")
            if self._devices.count(device) > 1:
                raise ConfigError(
                    f"--devices names GPU {device} twice",
                    "several workers share a GPU with --workers 2 --gpus-per-worker 0.5",
                )
        return self._devices

    def _tell(self, line: str) -> None:
        if self.say is not None:
            self.say(line)

    def _note(self, lines: Iterable[str]) -> None:
        self.notes += [line for line in dict.fromkeys(lines) if line not in self.notes]


def _processors(workers: int, cpus: float) -> int:
    """The number of processors for Ray: this machine's, or more if --workers need more."""
    return max(usable_cores(), math.ceil(workers * cpus))
