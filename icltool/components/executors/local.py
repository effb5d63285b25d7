"""The executor of one process: units one after another, where the command runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

from icltool.contracts.executor import EndsWork, LooksAhead, ReportsNotes
from icltool.contracts.json import Json

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class LocalExecutor:
    """Runs everything in this process. The worker is made at the first unit, so that nothing is loaded for no work.

    `notes` are the worker's, once a run is over.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []

    def run(self, make_worker: Callable[[], Callable[[Unit], Result]], units: Iterable[Unit]) -> Iterator[Result]:
        """Yields the result of each unit, in order, as soon as it is there. One unit is taken ahead, where the worker looks
        ahead."""
        remaining = iter(units)
        first = list(islice(remaining, 1))
        if not first:
            return
        worker = make_worker()
        finished = False
        try:
            yield from _worked(worker, chain(first, remaining))
            finished = True
        finally:
            if isinstance(worker, ReportsNotes):
                self.notes += [note for note in dict.fromkeys(worker.notes) if note not in self.notes]
            if isinstance(worker, EndsWork):
                worker.close(finished)

    def describe(self) -> dict[str, Json]:
        """One worker; the devices that this process sees."""
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            devices.append("mps")
        return {"executor": "local", "workers": 1, "devices": devices or [f"cpu ({os.cpu_count()} cores)"]}


def _worked(worker: Callable[[Unit], Result], units: Iterator[Unit]) -> Iterator[Result]:
    """Results of at least one unit."""
    if not isinstance(worker, LooksAhead):
        yield from map(worker, units)
        return
    current = next(units)
    worker.expect(current)
    for upcoming in units:
        worker.expect(upcoming)
        yield worker(current)
        current = upcoming
    yield worker(current)
