"""The conformance suite of executors."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Mapping

from icltool.contracts import Executor
from icltool.contracts.executor import Closes, ReportsNotes, ReportsStatus, SaysAtOnce
from icltool.testing.expectations import built, expect, expect_error


class WorkError(Exception):
    """Raised by the suite's worker on one unit."""


class Squares:
    """The suite's worker; its results identify the worker. Module-level, so that other processes can build it."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex

    def __call__(self, unit: int) -> tuple[int, int, str]:
        if unit < 0:
            raise WorkError(f"unit {unit}")
        return unit, unit * unit, self.token


class Foreseeing:
    """A worker that looks ahead: with each result it returns the units announced so far."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self.announced: list[int] = []

    def expect(self, unit: int) -> None:
        self.announced.append(unit)

    def __call__(self, unit: int) -> tuple[int, str, tuple[int, ...]]:
        return unit, self.token, tuple(self.announced)


class Remarking(Squares):
    """A worker with a final note."""

    notes = ("a remark of the worker's",)


def check_executor(executor: Executor | Callable[[], Executor], *, units: int = 40) -> None:
    """Checks an executor, or a class or factory that makes one, against `icltool.Executor`.

    Checks that every unit is processed once and its result returned, in any order; that each worker is built once, not once
    per unit; that units may be any iterable, including an empty one; that an executor can run twice; that a worker's
    exception reaches the caller; that existing units are announced to a worker that looks ahead, once each; that the iterator
    can be closed early, and units are consumed as needed; that `describe()` is a dictionary; and optional abilities: notes,
    including those of workers, a status, and `close`. Raises AssertionError with a description of the fault.
    """
    runner = built(executor, "run")
    described = runner.describe()
    expect(
        isinstance(described, Mapping) and described,
        f"`describe()` must be a dictionary with something in it: {described!r}",
    )
    for count in (units, 1, 0, units):
        results = list(runner.run(Squares, (i for i in range(count))))
        actual = sorted(unit for unit, _, _ in results)
        expect(actual == list(range(count)), f"{count} units gave results for {actual}")
        expect(all(square == unit * unit for unit, square, _ in results), "a result does not belong to its unit")
        tokens = {token for _, _, token in results}
        expect(
            count < units or len(tokens) < count, "`make_worker` was called for every unit; once per worker is right"
        )

    def failing() -> None:
        for _ in runner.run(Squares, itertools.chain(range(3), [-1])):
            pass

    expect_error(Exception, failing, "an exception of the worker must reach the caller")
    _check_looking_ahead(runner, units)
    _check_closing(runner)
    _check_abilities(runner)


def _check_looking_ahead(runner: Executor, units: int) -> None:
    last: dict[str, tuple[int, ...]] = {}
    actual = []
    for unit, token, announced in runner.run(Foreseeing, range(units)):
        actual.append(unit)
        last[token] = max(last.get(token, ()), announced, key=len)
    expect(
        sorted(actual) == list(range(units)), f"with a worker that looks ahead, results came back for {sorted(actual)}"
    )
    for announced in last.values():
        expect(
            set(announced) <= set(range(units)),
            f"units {announced} were announced to a worker, but not all of them exist",
        )
        expect(len(set(announced)) == len(announced), f"a unit was announced to a worker twice: {announced}")


def _check_closing(runner: Executor) -> None:
    units = itertools.count()
    results = runner.run(Squares, units)
    for _ in range(3):
        unit, square, _ = next(results)
        expect(square == unit * unit, "a result does not belong to its unit")
    expect(isinstance(results, Closes), "what `run` returns must have `close`, as generators have")
    assert isinstance(results, Closes)
    results.close()
    count = next(units)
    expect(count < 1000, f"{count} units were taken from the iterable for 3 results")
    expect(
        len(list(runner.run(Squares, range(3)))) == 3, "after an iterator was closed early, `run` does not work again"
    )


def _check_abilities(runner: Executor) -> None:
    """ReportsNotes, ReportsStatus, SaysAtOnce, Closes."""
    if isinstance(runner, SaysAtOnce):
        runner.say = lambda line: None
    expect(len(list(runner.run(Remarking, range(3)))) == 3, "with a worker that has notes, results are missing")
    if isinstance(runner, ReportsNotes):
        expect(Remarking.notes[0] in runner.notes, f"what a worker has to say is not in `notes`: {runner.notes!r}")
    if isinstance(runner, ReportsStatus):
        expect(isinstance(runner.status(), str), f"`status()` must be a text, not {runner.status()!r}")
    if isinstance(runner, Closes):
        runner.close()
        runner.close()
