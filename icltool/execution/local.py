"""The executor of one process: units one after another, where the command runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class LocalExecutor:
    """Runs everything in this process. The worker is made at the first unit, so that nothing is loaded for no work."""

    def run(self, make_worker: Callable[[], Callable[[Unit], Result]], units: Iterable[Unit]) -> Iterator[Result]:
        """Yields the result of each unit, in order, as soon as it is there."""
        worker: Callable[[Unit], Result] | None = None
        for unit in units:
            if worker is None:
                worker = make_worker()
            yield worker(unit)

    def describe(self) -> dict[str, Any]:
        """One worker; the devices that this process sees."""
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            devices.append("mps")
        return {"executor": "local", "workers": 1, "devices": devices or [f"cpu ({os.cpu_count()} cores)"]}
