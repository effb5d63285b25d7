"""Which unit of work goes to which worker: those that failed once more, elsewhere, and one ahead for each worker."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from icltool.contracts import UnitFailure

Unit = TypeVar("Unit")

#: How often a unit is tried before it is given up, and how often it may be lost before it began.
TRIES, LOSSES = 3, 10
#: Units that failed at a worker in a row, and were then done by others, after which it is given no more; those of a node.
FEW, FEW_OF_NODE = 3, 6
#: Units that may wait for another try before no new ones are begun.
MOST_AGAIN = 16


@dataclass(eq=False)
class Ticket(Generic[Unit]):
    """A unit on its way. `tried_by` are the workers that failed at it, with their nodes, `told` those that wait for it."""

    unit: Unit
    tries: int = 0
    losses: int = 0
    tried_by: dict[int, str] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)


@dataclass
class Standing(Generic[Unit]):
    """What is known of a worker, or a node: `open` failed there since its last success, and nobody knows yet whose fault it
    was; `blamed` counts those that others could do; `error` is the last one."""

    open: set[Ticket[Unit]] = field(default_factory=set)
    blamed: int = 0
    succeeded: bool = False
    error: str = ""

    def success(self) -> None:
        self.open.clear()
        self.blamed, self.succeeded = 0, True

    @property
    def doubtful(self) -> bool:
        """Whether it may be what is broken. Two that fail at the same unit vouch for each other, if they ever did one."""
        return any(not self.succeeded or len(ticket.tried_by) == 1 for ticket in self.open)


class UnitQueue(Generic[Unit]):
    """Takes units from an iterable as workers need them. Workers are known by numbers, nodes by their ids.

    A worker has one unit in work and one reserved, which it is told of; a reserved unit goes to another worker when nothing
    else is left. A unit that failed is done again, on another node if there is one, or by another worker. One at which a unit
    failed is given no other before it is known whether the unit is to blame, unless all are in that case.
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
        """How many units wait, counted up to `most`: so many are taken from the iterable."""
        missing = most - len(self._fresh)
        self._fresh.extend(Ticket(unit) for unit in islice(self._units, max(0, missing)))
        return len(self._fresh) + len(self._again) + len(self._reserved)

    @property
    def waiting(self) -> bool:
        """Whether there is a unit that nobody works on."""
        return self.available(1) > 0

    def take(self, worker: int, crew: Mapping[int, str], coming: bool = False) -> tuple[Ticket[Unit], bool] | None:
        """(ticket, whether this worker was told of it before); None where there is nothing for it now.

        `crew` maps the workers that are given units, this one too, to their nodes; `coming`: others load on other nodes, and
        a node that never did a unit waits for them before it spoils more.
        """
        patient = coming and not self._nodes[crew[worker]].succeeded
        if self._workers[worker].doubtful and (patient or any(not self._workers[w].doubtful for w in crew)):
            self.release(worker)
            return None
        best = self._best(crew)
        ticket = self._reserved.pop(worker, None) or self._unreserved(worker, crew, patient)
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
        return None if ticket is None else (ticket, worker in ticket.told)

    def reserve(self, worker: int, crew: Mapping[int, str]) -> Ticket[Unit] | None:
        """Keeps a unit that this worker is likely to be given next; returns it where the worker is to be told of it."""
        if worker in self._reserved:
            return None
        ticket = self._unreserved(worker, crew, patient=True)
        if ticket is None:
            return None
        self._reserved[worker] = ticket
        known = worker in ticket.told
        ticket.told.add(worker)
        return None if known else ticket

    def done(self, ticket: Ticket[Unit], worker: int, node: str) -> None:
        """The unit is done; those that failed at it before, and did nothing since, are to blame for that."""
        self.succeeded = True
        self._workers[worker].success()
        self._nodes[node].success()
        for standing in self._standings(ticket):
            if ticket in standing.open:
                standing.blamed += 1
        self._decided(ticket)

    def failed(self, ticket: Ticket[Unit], worker: int, node: str, error: str, where: str) -> bool:
        """Notes that the unit failed; returns whether it will be tried again."""
        ticket.tries += 1
        ticket.tried_by[worker] = node
        ticket.told.discard(worker)
        for standing in (self._workers[worker], self._nodes[node]):
            standing.open.add(ticket)
            standing.error = error
        self.release(worker)
        return self._once_more(ticket, ticket.tries < self._most, error, where)

    def lost(self, ticket: Ticket[Unit], error: str, where: str) -> bool:
        """The worker died before it began: that is no try. Returns whether the unit will be tried again."""
        ticket.losses += 1
        return self._once_more(ticket, ticket.losses < LOSSES, error, where)

    def release(self, worker: int) -> None:
        """What was reserved for the worker comes first for the others."""
        ticket = self._reserved.pop(worker, None)
        if ticket is not None:
            self._put_back(ticket)

    def blamed(self, worker: int) -> str:
        """The last error of a worker that fails at what others can do; empty if it does not."""
        standing = self._workers[worker]
        return standing.error if standing.blamed >= FEW else ""

    def blamed_node(self, node: str) -> str:
        """The same of a node, whose workers may each have failed at few."""
        standing = self._nodes[node]
        return standing.error if standing.blamed >= FEW_OF_NODE else ""

    def forgive(self) -> None:
        """Nobody else is left: those that were to blame are given units again."""
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

    def _best(self, crew: Mapping[int, str]) -> list[int]:
        """Those that are trusted with another try: that work well, or at least are not in doubt, or else all."""
        sound = [w for w in crew if not self._workers[w].doubtful]
        proven = [w for w in sound if self._workers[w].succeeded and not self._workers[w].blamed]
        return proven or sound or list(crew)

    def _unreserved(self, worker: int, crew: Mapping[int, str], patient: bool) -> Ticket[Unit] | None:
        """Units that failed come first at a worker that ever did one, and last at one that is untried itself."""
        first = self._workers[worker].succeeded or self._workers[worker].doubtful
        ticket = self._other_try(worker, crew) if first else None
        if ticket is None and len(self._again) < MOST_AGAIN:
            self.available(1)
            ticket = self._fresh.popleft() if self._fresh else None
        return self._other_try(worker, crew) if ticket is None and not first and not patient else ticket

    def _other_try(self, worker: int, crew: Mapping[int, str]) -> Ticket[Unit] | None:
        best = self._best(crew) if self._again else []
        ticket = next((t for t in self._again if worker in best and self._suits(t, worker, crew, best)), None)
        if ticket is not None:
            self._again.remove(ticket)
        return ticket

    def _suits(self, ticket: Ticket[Unit], worker: int, crew: Mapping[int, str], best: Sequence[int]) -> bool:
        """Whether this worker is a good one for another try: on a new node, or the next best where there is none."""
        tried = set(ticket.tried_by.values())
        if crew[worker] not in tried:
            return True
        if worker in ticket.tried_by:
            return False
        standing = self._workers[worker]
        if len(self._again) >= MOST_AGAIN and standing.succeeded and not standing.blamed:
            return True
        return all(crew[w] in tried for w in best)
