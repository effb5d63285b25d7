"""Runs the units of a stage on the executor that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from icltool.contracts import Executor, Progress, Ticker
from icltool.contracts.executor import Closes, FailedUnitsError, ReportsNotes, ReportsStatus, SaysAtOnce, UnitFailure
from icltool.errors import DataError
from icltool.store.failures import GivenUp, write_failures

Unit = TypeVar("Unit")
Result = TypeVar("Result")

#: Failures that are told on the screen; the file has all.
SHOWN = 20


class Run(Generic[Unit, Result]):
    """The results of one call's units, as they come from `executor`. `failures` are the units that were given up, known at the
    end."""

    def __init__(self, executor: Executor, progress: Progress) -> None:
        self.executor = executor
        if isinstance(self.executor, SaysAtOnce):  # what cannot wait until the run is over
            self.executor.say = progress.say
        self.failures: tuple[UnitFailure, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What executor and workers have to say, once the run is over."""
        return list(self.executor.notes) if isinstance(self.executor, ReportsNotes) else []

    @contextmanager
    def results(
        self, make_worker: Callable[[], Callable[[Unit], Result]], units: Iterable[Unit]
    ) -> Iterator[Iterator[Result]]:
        """Within it results come; workers end with it."""
        found = self.executor.run(make_worker, units)
        try:
            yield self._guarded(found)
        finally:
            if isinstance(found, Closes):
                found.close()
            if isinstance(self.executor, Closes):  # where the run never began
                self.executor.close()

    def show(self, ticker: Ticker) -> None:
        """Writes into the progress line how the workers are."""
        if isinstance(self.executor, ReportsStatus):
            ticker.note(self.executor.status())

    def _guarded(self, found: Iterator[Result]) -> Iterator[Result]:
        try:
            yield from found
        except FailedUnitsError as error:
            self.failures = error.failures


def give_up(
    failures: Sequence[tuple[UnitFailure, str, GivenUp]],
    artefact: Path,
    total: int,
    things: str,
    progress: Progress,
) -> DataError:
    """Lists the failures beside the artefact and on the screen; the error to end with.

    Each comes with what it is called ("anchors 17, 23") and what the list is to hold of it. `total` and `things` are all the
    work there was ("anchors").
    """
    told: list[GivenUp] = [
        {**entry, "error": failure.error, "tries": failure.tries, "where": failure.where}
        for failure, _, entry in failures
    ]
    path = write_failures(artefact, told)
    for failure, name, _ in failures[:SHOWN]:
        place = f" on {failure.where}" if failure.where else ""
        progress.say(f"{name}: given up after {failure.tries} tries{place}: {failure.error}")
    if len(failures) > SHOWN:
        progress.say(f"… and {len(failures) - SHOWN} more")
    lost = sum(entry.get("count", 1) for _, _, entry in failures)
    return DataError(
        f"{lost:,} of {total:,} {things} failed, again and again; the first: {failures[0][1]}: {failures[0][0].error}",
        f"all are listed in {path}; what was finished is kept: run the same command again",
    )
