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

    A plain executor lets the exception of a worker through as it comes. One that can lose workers does a unit again elsewhere,
    a few times, goes on with the others, and raises FailedUnitsError once all of them are done.
    """

    def run(self, make_worker: Callable[[], Callable[[Unit], Result]], units: Iterable[Unit]) -> Iterator[Result]:
        """Calls `make_worker` once per worker (it loads the model), then the worker on every unit.

        `make_worker` and units are small: where workers are other processes, both travel by pickle. Closing the iterator
        ends the workers. Units are taken from the iterable as they are needed, in order.
        """
        ...

    def describe(self) -> Mapping[str, Json]:
        """What the user should know: number of workers, devices."""
        ...


@runtime_checkable
class LooksAhead(Protocol):
    """A worker that can prepare for the unit after the one that it is given next (its images are read meanwhile)."""

    def expect(self, unit: Any) -> None:
        """Told before the unit in front of it is worked on; of the first one, before it is given. That it is then really
        given is likely, not certain."""
        ...


@runtime_checkable
class EndsWork(Protocol):
    """A worker that holds what must be closed: files, processes of its own."""

    def close(self, finished: bool) -> None:
        """Called once, after the last unit; `finished` is False where the run was cut short."""
        ...


class Shipment(Protocol):
    """Files that were sent to all workers; travels with what makes them."""

    def local(self, name: str) -> Path:
        """The file or folder of this name where it is called, to be read only."""
        ...


@runtime_checkable
class Ships(Protocol):
    """An executor that can send files to workers which share no disk with this process, each once to a machine."""

    def ship(self, paths: Mapping[str, Path]) -> Shipment:
        """Sends files and folders, by name. To be called before the run that needs them."""
        ...


@runtime_checkable
class ReportsStatus(Protocol):
    """An executor that can say, while it runs, how its workers are."""

    def status(self) -> str:
        """A few words for the progress line: "7 of 8 workers, 1 loading"."""
        ...


@runtime_checkable
class ReportsNotes(Protocol):
    """An executor, or a worker, with something to say once the work is over."""

    @property
    def notes(self) -> Sequence[str]:
        """Lines for the user: workers that died, what a session said of memory."""
        ...


@runtime_checkable
class SaysAtOnce(Protocol):
    """An executor with something to say that cannot wait until the run is over."""

    #: Takes a line for the user; set before the run.
    say: Callable[[str], None]


@runtime_checkable
class Closes(Protocol):
    """An executor, or an iterator of results, that holds something until it is closed."""

    def close(self) -> None:
        """Lets go of it; may be called again."""
        ...


@dataclass(frozen=True)
class UnitFailure:
    """A unit that was given up after `tries`: the last error in one line, and where it came up (a node's name)."""

    unit: Any
    error: str
    tries: int
    where: str = ""


class FailedUnitsError(IclError):
    """Raised at the end of a run: every other unit was done. `failures` are those that were given up."""

    def __init__(self, failures: Sequence[UnitFailure]) -> None:
        first = failures[0]
        super().__init__(
            f"{len(failures)} unit(s) of work failed, each {first.tries} times; the first: {first.error}",
            "run the same command again: what is finished is kept",
        )
        self.failures = tuple(failures)

    def __reduce__(self) -> tuple[type[FailedUnitsError], tuple[tuple[UnitFailure, ...]]]:
        return type(self), (self.failures,)
