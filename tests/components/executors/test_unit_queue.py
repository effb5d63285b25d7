"""Which unit goes to which worker: retries, reservations, laziness."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies as st

from icltool.components.executors.unit_queue import FEW, LOSSES, MOST_AGAIN, Ticket, UnitQueue

ALONE = {1: "here"}
PAIR = {1: "here", 2: "there"}


def taken(queue: UnitQueue, worker: int, crew: Mapping[int, str] = PAIR) -> Ticket:
    assignment = queue.take(worker, crew)
    assert assignment is not None
    return assignment[0]


def test_a_worker_gets_what_was_reserved_for_it() -> None:
    queue = UnitQueue("abc")
    assert queue.take(1, PAIR) is not None
    ahead = queue.reserve(1, PAIR)
    assert ahead is not None
    assert queue.reserve(1, PAIR) is None, "it was told of it"
    assert taken(queue, 2).unit == "c"
    assert queue.take(1, PAIR) == (ahead, True)
    assert not queue.waiting


def test_an_idle_worker_takes_a_reserved_unit_when_nothing_else_is_left() -> None:
    queue = UnitQueue("ab")
    taken(queue, 1)
    queue.reserve(1, PAIR)
    assert queue.take(2, PAIR) is not None
    assert queue.take(1, PAIR) is None
    assert not queue.waiting


def test_units_are_taken_as_they_are_needed() -> None:
    numbers = itertools.count()
    queue = UnitQueue(numbers)
    crew = dict.fromkeys(range(3), "here")
    assert queue.available(3) == 3
    for worker in crew:
        taken(queue, worker, crew)
        queue.reserve(worker, crew)
    assert next(numbers) == 6


def test_a_failed_unit_goes_to_another_worker_and_to_the_same_where_there_is_none() -> None:
    queue = UnitQueue("a")
    ticket = taken(queue, 1)
    assert queue.failed(ticket, 1, "here", "wrong", "here")
    assert queue.take(1, PAIR) is None
    assert queue.waiting
    assert taken(queue, 2) is ticket
    assert queue.failed(ticket, 2, "there", "wrong", "here")
    assert taken(queue, 1) is ticket, "both failed at it"
    assert not queue.failed(ticket, 1, "here", "still wrong", "there")
    assert [(f.unit, f.error, f.tries, f.where) for f in queue.failures] == [("a", "still wrong", 3, "there")]
    assert not queue.waiting


def test_another_try_is_made_on_another_node_if_there_is_one() -> None:
    queue = UnitQueue("a")
    crew = {1: "here", 2: "here", 3: "there"}
    ticket = taken(queue, 1, crew)
    queue.failed(ticket, 1, "here", "wrong", "here")
    assert queue.take(2, crew) is None
    assert queue.take(2, {1: "here", 2: "here"}) == (ticket, False)


def test_who_failed_takes_nothing_new_until_it_is_known_whose_fault_it_was() -> None:
    queue = UnitQueue("xyabcd")
    for worker, node in PAIR.items():
        queue.done(taken(queue, worker), worker, node)
    ticket = taken(queue, 1)
    ahead = queue.reserve(1, PAIR)
    queue.failed(ticket, 1, "here", "wrong", "here")
    assert queue.take(1, PAIR) is None
    assert taken(queue, 2) is ticket, "before anything new"
    assert queue.take(1, PAIR) is None
    queue.done(ticket, 2, "there")
    assert queue.take(1, PAIR) == (ahead, True)


def test_one_alone_goes_on_after_a_failure() -> None:
    queue = UnitQueue("ab")
    first = taken(queue, 1, ALONE)
    queue.failed(first, 1, "here", "wrong", "here")
    second = taken(queue, 1, ALONE)
    assert second.unit == "b"
    queue.done(second, 1, "here")
    assert taken(queue, 1, ALONE) is first


def test_a_node_that_never_did_a_unit_waits_for_those_that_still_load() -> None:
    queue = UnitQueue("abc")
    ticket = taken(queue, 1, ALONE)
    queue.failed(ticket, 1, "here", "wrong", "here")
    assert queue.take(1, ALONE, coming=True) is None
    assert queue.take(1, ALONE, coming=False) is not None


def test_a_unit_that_never_began_has_not_been_tried() -> None:
    queue = UnitQueue("a")
    for worker in range(LOSSES - 1):
        assert queue.lost(taken(queue, worker, {worker: "here"}), "died", "here")
    ticket = taken(queue, 99, {99: "here"})
    assert ticket.tries == 0
    assert not queue.lost(ticket, "died", "here"), "but not for ever"
    assert [f.unit for f in queue.failures] == ["a"]


def test_a_worker_is_told_of_a_unit_once_until_it_fails_at_it() -> None:
    queue = UnitQueue("ab")
    taken(queue, 1)
    ahead = queue.reserve(1, PAIR)
    assert ahead is not None
    assert queue.take(2, PAIR) == (ahead, False)
    queue.failed(ahead, 2, "there", "wrong", "")
    assert queue.reserve(1, PAIR) is None
    assert queue.take(1, PAIR) == (ahead, True)
    queue.failed(ahead, 1, "here", "wrong", "")
    assert queue.take(1, PAIR) == (ahead, False)


def test_what_was_reserved_for_a_dead_worker_comes_first() -> None:
    queue = UnitQueue("abcd")
    taken(queue, 1)
    queue.reserve(1, PAIR)
    queue.release(1)
    assert taken(queue, 2).unit == "b"


@dataclass
class Day:
    """Workers on nodes, in simulated time: a unit takes a broken one 0.01 s, another 1 s and a little."""

    nodes: Mapping[int, str]
    broken: Callable[[int], bool]
    bad: Callable[[int], bool] = lambda unit: False
    done: list[int] = field(default_factory=list)
    spoilt: int = 0
    most_waiting: int = 0
    seconds: float = 0.0

    def run(self, queue: UnitQueue) -> None:
        busy: list[tuple[float, int, Ticket]] = []
        while True:
            crew = {w: n for w, n in self.nodes.items() if not queue.blamed(w) and not queue.blamed_node(n)}
            for worker in crew:
                assignment = None if any(worker == w for _, w, _ in busy) else queue.take(worker, crew)
                if assignment is not None:
                    queue.reserve(worker, crew)
                    lasts = 0.01 if self.broken(worker) else 1 + worker / 100
                    heapq.heappush(busy, (self.seconds + lasts, worker, assignment[0]))
            if not busy:
                return
            self.seconds, worker, ticket = heapq.heappop(busy)
            if self.broken(worker) or self.bad(ticket.unit):
                self.spoilt += 1
                queue.failed(ticket, worker, self.nodes[worker], "wrong", "")
            else:
                self.done.append(ticket.unit)
                queue.done(ticket, worker, self.nodes[worker])
            self.most_waiting = max(self.most_waiting, len(queue._again))


@pytest.mark.parametrize("per_node", [1, 3, 9])
@pytest.mark.parametrize("broken", [3, 18])
def test_a_broken_machine_spoils_no_unit(per_node: int, broken: int) -> None:
    nodes = {w: str(w // per_node) for w in range(27)}
    day, queue = Day(nodes, lambda worker: worker < broken), UnitQueue(range(500))
    day.run(queue)
    assert queue.failures == []
    assert sorted(day.done) == list(range(500))
    assert day.spoilt <= FEW * broken
    assert all(queue.blamed(w) or queue.blamed_node(n) for w, n in nodes.items() if w < broken)
    assert not any(queue.blamed(w) or queue.blamed_node(n) for w, n in nodes.items() if w >= 18)


@pytest.mark.parametrize("nodes", [{0: "a"}, {0: "a", 1: "a"}, {0: "a", 1: "b"}, {w: str(w // 2) for w in range(8)}])
def test_units_that_are_bad_everywhere_are_given_up_and_nobody_is_blamed(nodes: dict[int, str]) -> None:
    day, queue = (
        Day(nodes, lambda worker: False, lambda unit: unit % 3 == 0 or 100 <= unit < 150),
        UnitQueue(range(300)),
    )
    day.run(queue)
    assert sorted(f.unit for f in queue.failures) == [u for u in range(300) if day.bad(u)]
    assert all(f.tries == 3 for f in queue.failures)
    assert len(day.done) + len(queue.failures) == 300
    assert not any(queue.blamed(w) or queue.blamed_node(n) for w, n in nodes.items())
    assert day.most_waiting <= MOST_AGAIN + len(nodes)
    assert day.seconds <= 1.75 * (len(day.done) + day.spoilt) / len(nodes), "few stand idle meanwhile"


@given(
    st.integers(0, 12),
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["done", "failed", "died"])), max_size=60),
)
def test_every_unit_ends_once_whatever_happens(
    units: int, workers: int, nodes: int, events: list[tuple[int, str]]
) -> None:
    """Done by one worker, or given up after three tries; and a worker that is idle finds work as long as there is any."""
    queue = UnitQueue(range(units))
    serials = itertools.count(workers)
    crew: list[int] = list(range(workers))
    busy: dict[int, Ticket] = {}
    done: list[int] = []
    tries: dict[int, int] = dict.fromkeys(range(units), 0)
    for place, what in itertools.chain(events, itertools.cycle([(p, "done") for p in range(4)])):
        for worker in crew:
            at = {w: f"node {w % nodes}" for w in crew}
            assignment = None if worker in busy else queue.take(worker, at)
            if assignment is not None:
                busy[worker] = assignment[0]
                queue.reserve(worker, at)
        if not busy:
            break
        worker = crew[place % workers]
        if worker not in busy:
            continue
        ticket = busy.pop(worker)
        tries[ticket.unit] += 1
        if what == "done":
            done.append(ticket.unit)
            queue.done(ticket, worker, f"node {worker % nodes}")
            continue
        queue.failed(ticket, worker, f"node {worker % nodes}", what, "")
        if what == "died":
            queue.release(worker)
            crew[place % workers] = next(serials)
    assert not queue.waiting
    assert sorted([*done, *(f.unit for f in queue.failures)]) == list(range(units))
    assert all(f.tries == tries[f.unit] == 3 for f in queue.failures)
