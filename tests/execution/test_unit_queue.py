"""Which unit goes to which worker: retries, reservations, laziness."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from icltool.execution.unit_queue import Ticket, UnitQueue


def taken(queue: UnitQueue, worker: int, others: tuple[int, ...] = ()) -> Ticket:
    found = queue.take(worker, others)
    assert found is not None
    return found[0]


def test_a_worker_gets_what_was_reserved_for_it() -> None:
    queue = UnitQueue("abc")
    assert queue.take(1) is not None
    ahead = queue.reserve(1)
    assert ahead is not None
    assert queue.reserve(1) is None, "it was told of it"
    assert taken(queue, 2).unit == "c"
    assert queue.take(1) == (ahead, True)
    assert not queue.waiting


def test_an_idle_worker_takes_a_reserved_unit_when_nothing_else_is_left() -> None:
    queue = UnitQueue("ab")
    taken(queue, 1)
    queue.reserve(1)
    assert queue.take(2) is not None
    assert queue.take(1) is None
    assert not queue.waiting


def test_units_are_taken_as_they_are_needed() -> None:
    numbers = itertools.count()
    queue = UnitQueue(numbers)
    assert queue.available(3) == 3
    for worker in range(3):
        taken(queue, worker)
        queue.reserve(worker)
    assert next(numbers) == 6


def test_a_failed_unit_goes_to_another_worker_and_to_the_same_where_there_is_none() -> None:
    queue = UnitQueue("a")
    ticket = taken(queue, 1)
    assert queue.failed(ticket, 1, "wrong", "here")
    assert queue.take(1, others=(2,)) is None
    assert queue.waiting
    assert taken(queue, 2, others=(1,)) is ticket
    assert queue.failed(ticket, 2, "wrong", "here")
    assert taken(queue, 1, others=(2,)) is ticket, "both failed at it"
    assert not queue.failed(ticket, 1, "still wrong", "there")
    assert [(f.unit, f.error, f.tries, f.where) for f in queue.failures] == [("a", "still wrong", 3, "there")]
    assert not queue.waiting


def test_a_worker_is_told_of_a_unit_once_until_it_fails_at_it() -> None:
    queue = UnitQueue("ab")
    taken(queue, 1)
    ahead = queue.reserve(1)
    assert ahead is not None
    assert queue.take(2) == (ahead, False)
    queue.failed(ahead, 2, "wrong", "")
    assert queue.reserve(1) is None
    assert queue.take(1) == (ahead, True)
    queue.failed(ahead, 1, "wrong", "")
    assert queue.take(1) == (ahead, False)


def test_what_was_reserved_for_a_dead_worker_comes_first() -> None:
    queue = UnitQueue("abcd")
    taken(queue, 1)
    queue.reserve(1)
    queue.release(1)
    assert taken(queue, 2).unit == "b"


@given(
    st.integers(0, 12),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["done", "failed", "died"])), max_size=60),
)
def test_every_unit_ends_once_whatever_happens(units: int, workers: int, events: list[tuple[int, str]]) -> None:
    """Done by one worker, or given up after three tries; and a worker that is idle finds work as long as there is any."""
    queue = UnitQueue(range(units))
    serials = itertools.count(workers)
    crew: list[int] = list(range(workers))
    busy: dict[int, Ticket] = {}
    done: list[int] = []
    tries: dict[int, int] = dict.fromkeys(range(units), 0)
    for place, what in itertools.chain(events, itertools.cycle([(p, "done") for p in range(4)])):
        for worker in crew:
            found = None if worker in busy else queue.take(worker, [w for w in crew if w != worker])
            if found is not None:
                busy[worker] = found[0]
                queue.reserve(worker)
        if not busy:
            break
        worker = crew[place % workers]
        if worker not in busy:
            continue
        ticket = busy.pop(worker)
        tries[ticket.unit] += 1
        if what == "done":
            done.append(ticket.unit)
            continue
        queue.failed(ticket, worker, what, "")
        if what == "died":
            queue.release(worker)
            crew[place % workers] = next(serials)
    assert not queue.waiting
    assert sorted([*done, *(f.unit for f in queue.failures)]) == list(range(units))
    assert all(f.tries == tries[f.unit] == 3 for f in queue.failures)
