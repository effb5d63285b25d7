"""Executors run units of work, on this process or on many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from icltool.contracts.json import Json
from icltool.errors import IclError

Unit = TypeVar("Unit")
Result = TypeVar("Result")


@runtime_checkable
class Executor(Protocol):
    """Runs `work` on units. Results may come in any order; each carries its unit's key, and one caller writes them.

    A plain executor passes on the exception of a worker. One that can lose workers retries a unit on other workers a few
    times, finishes the other units, and then raises FailedUnitsError.
    """

    def run(self, make_worker: Callable[[], Callable[[Unit], Result]], units: Iterable[Unit]) -> Iterator[Result]:
        """Calls `make_worker` once per worker (it loads the model), then the worker on every unit.

        `make_worker` and units are small: they are pickled if workers are other processes. Closing the iterator ends the
        workers. Units are read from the iterable as they are needed, in order.
        """
        ...

    def describe(self) -> Mapping[str, Json]:
        """Facts for the user: the number of workers, the devices."""
        ...


@runtime_checkable
class LooksAhead(Protocol):
    """A worker that can prepare for the unit after the next one (it reads the images in the meantime)."""

    def expect(self, unit: Any) -> None:
        """Called before the worker runs the unit before this one; for the first unit, before it runs. The unit is likely to
        follow, but not certain to."""
        ...


@runtime_checkable
class EndsWork(Protocol):
    """A worker that holds resources to be closed: files, processes."""

    def close(self, finished: bool) -> None:
        """Called once, after the last unit; `finished` is False if the run was interrupted."""
        ...


class Shipment(Protocol):
    """Files that were sent to all workers; it is pickled with `make_worker`."""

    def local(self, name: str) -> Path:
        """The file or folder of this name on the machine of the caller; read only."""
        ...


@runtime_checkable
class Ships(Protocol):
    """An executor that sends files to workers without a shared disk, once per machine."""

    def ship(self, paths: Mapping[str, Path]) -> Shipment:
        """Sends files and folders, by name. Call it before the run that needs them."""
        ...


@runtime_checkable
class ReportsStatus(Protocol):
    """An executor that reports the state of its workers while it runs."""

    def status(self) -> str:
        """A few words for the progress line: "7 of 8 workers, 1 loading"."""
        ...


@runtime_checkable
class ReportsNotes(Protocol):
    """An executor or a worker with notes for the user at the end of the run."""

    @property
    def notes(self) -> Sequence[str]:
        """Lines for the user: workers that died, a session's notes on memory."""
        ...


@runtime_checkable
class SaysAtOnce(Protocol):
    """An executor with messages that cannot wait until the end of the run."""

    #: Prints a line for the user; set before the run.
    say: Callable[[str], None]


@runtime_checkable
class Closes(Protocol):
    """An executor, or an iterator of results, with resources that must be closed."""

    def close(self) -> None:
        """Releases it; may be called again."""
        ...


@dataclass(frozen=True)
class UnitFailure:
    """A unit that failed `tries` times: the last error in one line, and where it occurred (a node's name)."""

    unit: Any
    error: str
    tries: int
    where: str = ""


class FailedUnitsError(IclError):
    """Raised at the end of a run, when every other unit is done. `failures` are the units that failed."""

    def __init__(self, failures: Sequence[UnitFailure]) -> None:
        first = failures[0]
        super().__init__(
            f"{len(failures):,} unit{'s' * (len(failures) != 1)} of work failed after {first.tries} attempts each; the first: "
            f"{first.error}",
            "finished work is kept: rerun the command to resume",
        )
        self.failures = tuple(failures)

    def __reduce__(self) -> tuple[type[FailedUnitsError], tuple[tuple[UnitFailure, ...]]]:
        return type(self), (self.failures,)
