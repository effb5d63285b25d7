"""Runs a command's units of work on its executor."""

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

#: The largest number of failures printed; the file has all.
SHOWN = 20


class Run(Generic[Unit, Result]):
    """The results of one run of `executor`, as they come. `failures` are the units that failed, known at the end."""

    def __init__(self, executor: Executor, progress: Progress) -> None:
        self.executor = executor
        if isinstance(self.executor, SaysAtOnce):
            self.executor.say = progress.say
        self.failures: tuple[UnitFailure, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Notes of the executor and its workers, once the run is over."""
        return list(self.executor.notes) if isinstance(self.executor, ReportsNotes) else []

    @contextmanager
    def results(
        self, make_worker: Callable[[], Callable[[Unit], Result]], units: Iterable[Unit]
    ) -> Iterator[Iterator[Result]]:
        """The results; leaving the context ends the workers."""
        results = self.executor.run(make_worker, units)
        try:
            yield self._guarded(results)
        finally:
            if isinstance(results, Closes):
                results.close()
            if isinstance(self.executor, Closes):  # if the run never began
                self.executor.close()

    def show(self, ticker: Ticker) -> None:
        """Puts the state of the workers into the progress line."""
        if isinstance(self.executor, ReportsStatus):
            ticker.note(self.executor.status())

    def _guarded(self, results: Iterator[Result]) -> Iterator[Result]:
        try:
            yield from results
        except FailedUnitsError as error:
            self.failures = error.failures


def give_up(
    failures: Sequence[tuple[UnitFailure, str, GivenUp]],
    artefact: Path,
    total: int,
    noun: str,
    progress: Progress,
) -> DataError:
    """Writes the list of failures beside the artefact, prints the first, and returns the error to raise.

    Each failure comes with its name ("anchors 17, 23") and its entry in the list. `total` and `noun` are the amount of work
    of the whole run (5000, "anchors").
    """
    entries: list[GivenUp] = [
        {**entry, "error": failure.error, "tries": failure.tries, "where": failure.where}
        for failure, _, entry in failures
    ]
    path = write_failures(artefact, entries)
    for failure, name, _ in failures[:SHOWN]:
        place = f" on {failure.where}" if failure.where else ""
        progress.say(f"{name}: failed after {failure.tries} attempts{place}: {failure.error}")
    if len(failures) > SHOWN:
        progress.say(f"… and {len(failures) - SHOWN} more")
    lost = sum(entry.get("count", 1) for _, _, entry in failures)
    return DataError(
        f"{lost:,} of {total:,} {noun} failed after {failures[0][0].tries} attempts each; the first: {failures[0][1]}: "
        f"{failures[0][0].error}",
        f"see {path} for all of them; finished work is kept: rerun the command to resume",
    )
