"""Assigns units of work to workers: failed units go to another worker, and each worker has one unit reserved."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from icltool.contracts import UnitFailure

Unit = TypeVar("Unit")

#: Attempts after which a unit fails for good, and how often a worker may die before it begins the unit.
TRIES, LOSSES = 3, 10
#: Units in a row that failed at a worker, and that others then did, after which it gets no more; the same for a node.
FEW, FEW_OF_NODE = 3, 6
#: Failed units that may wait for another attempt before new ones are held back.
MOST_AGAIN = 16


@dataclass(eq=False)
class Ticket(Generic[Unit]):
    """A unit and its attempts. `tried_by` are the workers that failed at it, with their nodes."""

    unit: Unit
    tries: int = 0
    losses: int = 0
    tried_by: dict[int, str] = field(default_factory=dict)
    announced_to: set[int] = field(default_factory=set)


@dataclass
class Standing(Generic[Unit]):
    """The record of a worker or a node: units in `open` failed there since its last success, and no other worker has done them
    yet; `blamed` counts those that others could do; `error` is the last error."""

    open: set[Ticket[Unit]] = field(default_factory=set)
    blamed: int = 0
    succeeded: bool = False
    error: str = ""

    def success(self) -> None:
        self.open.clear()
        self.blamed, self.succeeded = 0, True

    @property
    def doubtful(self) -> bool:
        """Whether it may be broken. A worker that ever succeeded is not in doubt if another one failed at the same unit."""
        return any(not self.succeeded or len(ticket.tried_by) == 1 for ticket in self.open)


class UnitQueue(Generic[Unit]):
    """Takes units from an iterable as workers need them. Workers are known by numbers, nodes by their ids.

    A worker has one unit in work and one reserved, which is announced to it; a reserved unit goes to another worker if
    nothing else is left. A failed unit is repeated on another node, if there is one, or by another worker. A worker at which
    a unit failed gets no other until it is clear whether the unit is to blame, unless all workers are in that state.
    """

    def __init__(self, units: Iterable[Unit], tries: int = TRIES) -> None:
        self._units: Iterator[Unit] = iter(units)
        self._most = tries
        self._fresh: deque[Ticket[Unit]] = deque()
        self._again: list[Ticket[Unit]] = []
        self._reserved: dict[int, Ticket[Unit]] = {}
        self._workers: defaultdict[int, Standing[Unit]] = defaultdict(Standing)
        self._nodes: defaultdict[str, Standing[Unit]] = defaultdict(Standing)
        self.failures: list[UnitFailure] = []
        self.succeeded = False

    def available(self, most: int) -> int:
        """The number of waiting units, counted up to `most`; so many are taken from the iterable."""
        missing = most - len(self._fresh)
        self._fresh.extend(Ticket(unit) for unit in islice(self._units, max(0, missing)))
        return len(self._fresh) + len(self._again) + len(self._reserved)

    @property
    def waiting(self) -> bool:
        """Whether a unit waits for a worker."""
        return self.available(1) > 0

    def take(self, worker: int, active: Mapping[int, str], coming: bool = False) -> tuple[Ticket[Unit], bool] | None:
        """(ticket, whether it was announced to this worker); None if there is nothing for it now.

        `active` maps the workers that get units, with this one, to their nodes. If others load on other nodes (`coming`), a
        node that never did a unit waits for them before it fails at more.
        """
        patient = coming and not self._nodes[active[worker]].succeeded
        if self._workers[worker].doubtful and (patient or any(not self._workers[w].doubtful for w in active)):
            self.release(worker)
            return None
        best = self._best(active)
        ticket = self._reserved.pop(worker, None) or self._unreserved(worker, active, patient)
        if ticket is None and self._reserved:
            able = (
                w for w, t in self._reserved.items() if not t.tries or (worker in best and worker not in t.tried_by)
            )
            owner = next(able, None)
            ticket = None if owner is None else self._reserved.pop(owner)
        if ticket is None and worker in best and not patient:
            others = set(best) - {worker}
            ticket = next((t for t in self._again if not others - set(t.tried_by)), None)
            if ticket is not None:
                self._again.remove(ticket)
        return None if ticket is None else (ticket, worker in ticket.announced_to)

    def reserve(self, worker: int, active: Mapping[int, str]) -> Ticket[Unit] | None:
        """Reserves the next unit of this worker; returns it if it must be announced to the worker."""
        if worker in self._reserved:
            return None
        ticket = self._unreserved(worker, active, patient=True)
        if ticket is None:
            return None
        self._reserved[worker] = ticket
        known = worker in ticket.announced_to
        ticket.announced_to.add(worker)
        return None if known else ticket

    def done(self, ticket: Ticket[Unit], worker: int, node: str) -> None:
        """Records a success: workers that failed at the unit, and did nothing since, are to blame."""
        self.succeeded = True
        self._workers[worker].success()
        self._nodes[node].success()
        for standing in self._standings(ticket):
            if ticket in standing.open:
                standing.blamed += 1
        self._decided(ticket)

    def failed(self, ticket: Ticket[Unit], worker: int, node: str, error: str, where: str) -> bool:
        """Records a failure; returns whether the unit will be tried again."""
        ticket.tries += 1
        ticket.tried_by[worker] = node
        ticket.announced_to.discard(worker)
        for standing in (self._workers[worker], self._nodes[node]):
            standing.open.add(ticket)
            standing.error = error
        self.release(worker)
        return self._once_more(ticket, ticket.tries < self._most, error, where)

    def lost(self, ticket: Ticket[Unit], error: str, where: str) -> bool:
        """Records that the worker died before it began: not an attempt. Returns whether the unit will be tried again."""
        ticket.losses += 1
        return self._once_more(ticket, ticket.losses < LOSSES, error, where)

    def release(self, worker: int) -> None:
        """Gives the unit that is reserved for the worker back to the others."""
        ticket = self._reserved.pop(worker, None)
        if ticket is not None:
            self._put_back(ticket)

    def blamed(self, worker: int) -> str:
        """The last error of a worker that fails at units that others can do; "" if it does not."""
        standing = self._workers[worker]
        return standing.error if standing.blamed >= FEW else ""

    def blamed_node(self, node: str) -> str:
        """The same for a node, whose workers may each have failed at few units."""
        standing = self._nodes[node]
        return standing.error if standing.blamed >= FEW_OF_NODE else ""

    def forgive(self) -> None:
        """Gives units to blamed workers again, because no other is left."""
        for standing in (*self._workers.values(), *self._nodes.values()):
            standing.blamed = 0

    def _once_more(self, ticket: Ticket[Unit], more: bool, error: str, where: str) -> bool:
        if more:
            self._put_back(ticket)
        else:
            self._decided(ticket)
            self.failures.append(UnitFailure(ticket.unit, error, ticket.tries + ticket.losses, where))
        return more

    def _put_back(self, ticket: Ticket[Unit]) -> None:
        if ticket.tries:
            self._again.append(ticket)
        else:
            self._fresh.appendleft(ticket)

    def _standings(self, ticket: Ticket[Unit]) -> list[Standing[Unit]]:
        workers = [self._workers[worker] for worker in ticket.tried_by]
        return workers + [self._nodes[node] for node in set(ticket.tried_by.values())]

    def _decided(self, ticket: Ticket[Unit]) -> None:
        for standing in self._standings(ticket):
            standing.open.discard(ticket)

    def _best(self, active: Mapping[int, str]) -> list[int]:
        """The workers for another attempt: those that work well, else those not in doubt, else all."""
        sound = [w for w in active if not self._workers[w].doubtful]
        proven = [w for w in sound if self._workers[w].succeeded and not self._workers[w].blamed]
        return proven or sound or list(active)

    def _unreserved(self, worker: int, active: Mapping[int, str], patient: bool) -> Ticket[Unit] | None:
        """Failed units come first for a worker that ever succeeded, and last for one that did not."""
        first = self._workers[worker].succeeded or self._workers[worker].doubtful
        ticket = self._other_try(worker, active) if first else None
        if ticket is None and len(self._again) < MOST_AGAIN:
            self.available(1)
            ticket = self._fresh.popleft() if self._fresh else None
        return self._other_try(worker, active) if ticket is None and not first and not patient else ticket

    def _other_try(self, worker: int, active: Mapping[int, str]) -> Ticket[Unit] | None:
        best = self._best(active) if self._again else []
        ticket = next((t for t in self._again if worker in best and self._suits(t, worker, active, best)), None)
        if ticket is not None:
            self._again.remove(ticket)
        return ticket

    def _suits(self, ticket: Ticket[Unit], worker: int, active: Mapping[int, str], best: Sequence[int]) -> bool:
        """Whether this worker suits another attempt: on a new node, or the next best if there is none."""
        tried = set(ticket.tried_by.values())
        if active[worker] not in tried:
            return True
        if worker in ticket.tried_by:
            return False
        standing = self._workers[worker]
        if len(self._again) >= MOST_AGAIN and standing.succeeded and not standing.blamed:
            return True
        return all(active[w] in tried for w in best)
