"""The Ray cluster of two nodes on this machine that the tests of a file share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from icltool.components.executors import ray_cluster
from tests.components.executors.warm_workers import warm_workers

#: How soon Ray finds out that a node is gone: one that was killed refuses to answer, one that is only slow has its time.
HEALTH = {"health_check_period_ms": 300, "health_check_timeout_ms": 20_000, "health_check_failure_threshold": 2}


@dataclass
class TwoNodes:
    """Two nodes of two processors each; this process is connected through the first."""

    cluster: Any
    program: Path
    second: Any = None

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add_second(self) -> None:
        self.second = self.cluster.add_node(num_cpus=2, node_name="beta", setup_worker_path=str(self.program))

    def lose_second(self) -> None:
        """As when its power fails."""
        lost, self.second = self.second, None
        self.cluster.remove_node(lost, allow_graceful=False)

    def mend(self) -> None:
        """There are two again, whatever a test did."""
        if self.second is None:
            self.add_second()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    from ray.cluster_utils import Cluster

    # Ray would start workers beforehand, which do not have the variables that icltool's are given, and serve for nothing.
    system = {**HEALTH, "prestart_worker_first_driver": False}
    with warm_workers(tmp_path_factory.mktemp("workers")) as program:
        head = {
            "num_cpus": 2,
            "node_name": "alpha",
            "include_dashboard": False,
            "include_log_monitor": False,
            "no_monitor": True,  # nothing scales it
            "setup_worker_path": str(program),
            "_system_config": system,
        }
        pair = TwoNodes(Cluster(initialize_head=True, head_node_args=head), program)
        try:
            pair.add_second()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(ray_cluster, "_address", _known(pair.address))
                yield pair
        finally:
            pair.cluster.shutdown()


def _known(address: str) -> Callable[[str], str]:
    """Looks addresses up without starting Python anew for one that is known to answer."""
    look_up = ray_cluster._address
    return lambda arguments: arguments if arguments == address else look_up(arguments)
