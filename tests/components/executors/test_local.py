"""The local executor: one worker, in order, as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from icltool.components.executors.local import LocalExecutor
from icltool.contracts import Executor
from icltool.plugin.manager import component


def test_it_is_the_registered_executor() -> None:
    assert isinstance(component("executors", "local"), LocalExecutor)
    assert isinstance(LocalExecutor(), Executor)


def test_one_worker_serves_all_units_in_order_and_lazily() -> None:
    events: list[str] = []

    def make_worker() -> Callable[[int], int]:
        events.append("made")

        def work(unit: int) -> int:
            events.append(f"unit {unit}")
            return unit * unit

        return work

    def units() -> Iterator[int]:
        for unit in range(3):
            events.append(f"asked {unit}")
            yield unit

    results = LocalExecutor().run(make_worker, units())
    assert events == []
    assert next(results) == 0
    assert events == ["asked 0", "made", "unit 0"]
    assert list(results) == [1, 4]
    assert events.count("made") == 1


def test_no_units_make_no_worker() -> None:
    def make_worker() -> Callable[[int], int]:
        raise AssertionError("nothing is to be loaded")

    assert list(LocalExecutor().run(make_worker, [])) == []


def test_it_describes_itself() -> None:
    described = LocalExecutor().describe()
    assert described["workers"] == 1
    assert described["devices"]


class Ahead:
    """A worker that tells what it was told, and what became of it."""

    notes = ("memory ran short", "memory ran short")

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def expect(self, unit: int) -> None:
        self.events.append(f"expect {unit}")

    def __call__(self, unit: int) -> int:
        self.events.append(f"work {unit}")
        return unit

    def close(self, finished: bool) -> None:
        self.events.append(f"closed {finished}")


def test_a_worker_that_looks_ahead_is_told_of_one_unit_more() -> None:
    events: list[str] = []
    executor = LocalExecutor()
    assert list(executor.run(lambda: Ahead(events), range(3))) == [0, 1, 2]
    assert events == [
        "expect 0", "expect 1", "work 0", "expect 2", "work 1", "work 2", "closed True",
    ]  # fmt: skip
    assert executor.notes == ["memory ran short"]


def test_a_worker_is_closed_when_the_iterator_is() -> None:
    events: list[str] = []
    results = LocalExecutor().run(lambda: Ahead(events), range(9))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert events == ["expect 0", "expect 1", "work 0", "closed False"]
