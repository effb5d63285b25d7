"""Which unit of work goes to which worker: those that failed once more, and one ahead for each worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from icltool.contracts import UnitFailure

#: How often a unit is tried before it is given up.
TRIES = 3


@dataclass(eq=False)
class Ticket:
    """A unit on its way. `tried_by` are the workers that failed at it, `told` those that wait for it."""

    unit: Any
    tries: int = 0
    tried_by: set[int] = field(default_factory=set)
    told: set[int] = field(default_factory=set)


class UnitQueue:
    """Takes units from an iterable as workers need them. Workers are known by numbers.

    A worker has one unit in work and one reserved, which it is told of; a reserved unit goes to another worker when
    nothing else is left. A unit that failed is done again, by a worker that has not failed at it if there is one.
    """

    def __init__(self, units: Iterable[Any], tries: int = TRIES) -> None:
        self._units: Iterator[Any] = iter(units)
        self._most = tries
        self._fresh: deque[Ticket] = deque()
        self._again: list[Ticket] = []
        self._reserved: dict[int, Ticket] = {}
        self.failures: list[UnitFailure] = []

    def available(self, most: int) -> int:
        """How many units wait, counted up to `most`: so many are taken from the iterable."""
        missing = most - len(self._fresh)
        self._fresh.extend(Ticket(unit) for unit in islice(self._units, max(0, missing)))
        return len(self._fresh) + len(self._again) + len(self._reserved)

    @property
    def waiting(self) -> bool:
        """Whether there is a unit that nobody works on."""
        return self.available(1) > 0

    def take(self, worker: int, others: Collection[int] = ()) -> tuple[Ticket, bool] | None:
        """(ticket, whether this worker was told of it before); None where there is nothing for it now.

        `others` are the workers that could do what this one failed at.
        """
        ticket = self._reserved.pop(worker, None) or self._unreserved(worker)
        if ticket is None and self._reserved:
            owner = next((w for w, t in self._reserved.items() if worker not in t.tried_by), None)
            ticket = None if owner is None else self._reserved.pop(owner)
        if ticket is None:
            ticket = next((t for t in self._again if not set(others) - t.tried_by), None)
            if ticket is not None:
                self._again.remove(ticket)
        return None if ticket is None else (ticket, worker in ticket.told)

    def reserve(self, worker: int) -> Ticket | None:
        """Keeps a unit that this worker is likely to be given next; returns it where the worker is to be told of it."""
        if worker in self._reserved:
            return None
        ticket = self._unreserved(worker)
        if ticket is None:
            return None
        self._reserved[worker] = ticket
        known = worker in ticket.told
        ticket.told.add(worker)
        return None if known else ticket

    def failed(self, ticket: Ticket, worker: int, error: str, where: str) -> bool:
        """Notes that the unit failed; returns whether it will be tried again."""
        ticket.tries += 1
        ticket.tried_by.add(worker)
        ticket.told.discard(worker)
        if ticket.tries < self._most:
            self._again.append(ticket)
            return True
        self.failures.append(UnitFailure(ticket.unit, error, ticket.tries, where))
        return False

    def release(self, worker: int) -> None:
        """The worker is gone: what was reserved for it comes first for the others."""
        ticket = self._reserved.pop(worker, None)
        if ticket is not None:
            self._fresh.appendleft(ticket)

    def _unreserved(self, worker: int) -> Ticket | None:
        again = next((t for t in self._again if worker not in t.tried_by), None)
        if again is not None:
            self._again.remove(again)
            return again
        self.available(1)
        return self._fresh.popleft() if self._fresh else None
