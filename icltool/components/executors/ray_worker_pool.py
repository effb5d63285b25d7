"""The workers of a run on Ray: placed on nodes, loaded one after the other on each, replaced when they die."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, TypeVar

from icltool.components.executors.ray_cluster import Cluster, Needs, Node
from icltool.components.executors.ray_notes import RunNotes, count_of
from icltool.components.executors.ray_worker import Failure, RayWorker, one_line
from icltool.components.executors.unit_queue import FEW, FEW_OF_NODE, Ticket, UnitQueue
from icltool.errors import ConfigError

Unit = TypeVar("Unit")
Result = TypeVar("Result")

#: Failed loads in a row after which no further one is tried.
LOADS = 3
#: Seconds between two lines about a worker that cannot be placed, and the time limit for workers to close.
PATIENCE, CLOSES = 30.0, 60.0


class State(Enum):
    """The state of a worker."""

    PLACING = "starting"
    QUEUED = "waiting to load"
    LOADING = "loading"
    IDLE = "idle"
    WORKING = "working"
    GONE = "failed"


@dataclass(eq=False)
class Slot(Generic[Unit]):
    """The place of one worker; actors follow one another in it. `serial` names the present one."""

    state: State = State.PLACING
    serial: int = -1
    actor: Any = None
    node: str = ""
    ticket: Ticket[Unit] | None = None
    begun: Any = None  # the actor answers it right before it begins the unit
    placed: float = 0.0
    replaced: bool = False
    renewed: bool = False
    failed_loads: int = 0


class WorkerPool(Generic[Unit, Result]):
    """Runs the units of `queue` on `count` workers. `say` prints lines that cannot wait until the end."""

    def __init__(
        self,
        cluster: Cluster,
        needed: Needs,
        count: int,
        queue: UnitQueue[Unit],
        make_worker: Callable[[], Callable[[Unit], Result]],
        say: Callable[[str], object],
    ) -> None:
        import ray

        self._ray = ray
        self._cluster, self._needed, self._queue, self._say = cluster, needed, queue, say
        self._make_worker = ray.put(make_worker)
        self._slots = [Slot[Unit]() for _ in range(count)]
        self._slot_of: dict[Any, Slot[Unit]] = {}  # by pending call
        self._turns: dict[str, deque[Slot[Unit]]] = {}  # by node: the slot that loads, then those that wait
        self._names: dict[str, str] = {}
        self._aside: set[int | str] = set()  # workers and nodes noted as set aside
        self._serial, self._failed_loads = 0, 0
        self._fatal: BaseException | None = None
        self._without_since = time.monotonic()
        self.notes = RunNotes()
        # Set before torch is imported there; a worker without a GPU must not see those of its machine.
        variables = {"OMP_NUM_THREADS": str(needed.threads), "MKL_NUM_THREADS": str(needed.threads)}
        if not needed.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        self._actors = ray.remote(RayWorker).options(
            num_cpus=needed.cpus,
            num_gpus=needed.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": variables},
        )

    def results(self) -> Iterator[Result]:
        """Results as they come; then raises the error because of which no worker can be made, if any."""
        for slot in self._slots:
            self._place(slot)
        while self._fatal is None:
            self._hand_out()
            if not any(s.state is State.WORKING for s in self._slots) and not self._queue.waiting:
                return
            results: list[Result] = []
            for ref in self._finished():
                self._advance(self._slot_of.pop(ref), ref, results)
            self._hand_out()  # before the caller takes its time over the results
            yield from results
        raise self._fatal

    def finish(self) -> list[str]:
        """Closes the loaded workers; their notes, each once."""
        refs = [s.actor.finish.remote() for s in self._slots if s.state is State.IDLE]
        ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=CLOSES) if refs else ([], [])
        lines: dict[str, None] = {}
        for ref in ready:
            try:
                lines.update(dict.fromkeys(self._ray.get(ref)))
            except self._ray.exceptions.RayError as error:
                lines[f"a worker did not close: {_reason(error)}"] = None
        return list(lines)

    def kill(self) -> None:
        """Ends all actors now."""
        for slot in self._slots:
            self._bury(slot)

    def status(self) -> str:
        """ "6 of 8 workers, 1 loading, 1 lost"."""
        counts: Counter[str] = Counter()
        for slot in self._slots:
            if slot.state in (State.IDLE, State.WORKING):
                counts["set aside" if self._blamed(slot) else "ready"] += 1
            elif slot.state is State.GONE or (slot.replaced and slot.state is State.PLACING):
                counts["lost"] += 1
            else:
                counts["starting" if slot.state is State.PLACING else "loading"] += 1
        others = [f"{counts[word]} {word}" for word in ("starting", "loading", "set aside", "lost") if counts[word]]
        return ", ".join([f"{counts['ready']} of {count_of(len(self._slots), 'worker')}", *others])

    def _place(self, slot: Slot[Unit]) -> None:
        slot.actor = self._actors.remote(str(Path.cwd()))
        self._serial += 1
        slot.state, slot.serial, slot.node, slot.placed = State.PLACING, self._serial, "", time.monotonic()
        self._slot_of[slot.actor.where.remote()] = slot

    def _bury(self, slot: Slot[Unit]) -> None:
        """Ends the actor of a slot, after any error."""
        if slot.actor is not None:
            with suppress(Exception):
                self._ray.kill(slot.actor)
            slot.actor = None
        turns = self._turns.get(slot.node, deque())
        if slot in turns:
            turns.remove(slot)
            self._load_next(slot.node)
        self._queue.release(slot.serial)

    def _load_next(self, node: str) -> None:
        """Lets the first waiting worker of the node load, so that the host never loads two models at once."""
        turns = self._turns.get(node)
        if turns and turns[0].state is State.QUEUED:
            turns[0].state = State.LOADING
            self._slot_of[turns[0].actor.load.remote(self._make_worker)] = turns[0]

    def _hand_out(self) -> None:
        self._set_aside()
        able = (State.IDLE, State.WORKING)
        active = {s.serial: s.node for s in self._slots if s.state in able and not self._blamed(s)}
        for slot in self._slots:
            if slot.state is not State.IDLE or slot.serial not in active:
                continue
            assigned = self._queue.take(slot.serial, active, self._coming(slot.node))
            if assigned is None:
                continue
            slot.ticket, announced = assigned
            upcoming = self._queue.reserve(slot.serial, active)
            ahead = () if upcoming is None else (upcoming.unit,)
            slot.begun = slot.actor.where.remote()
            self._slot_of[slot.actor.work.remote(slot.ticket.unit, announced, ahead)] = slot
            slot.state = State.WORKING

    def _coming(self, node: str) -> bool:
        """Whether workers load on other nodes, or may still be placed there."""
        recent = time.monotonic() - PATIENCE
        return any(
            s.node != node
            and (s.state in (State.QUEUED, State.LOADING) or (s.state is State.PLACING and s.placed > recent))
            for s in self._slots
        )

    def _blamed(self, slot: Slot[Unit]) -> bool:
        return bool(self._queue.blamed(slot.serial) or self._queue.blamed_node(slot.node))

    def _set_aside(self) -> None:
        """Workers and nodes that fail at units that others can do get no more. A worker is restarted once: only its process may
        be broken. One that is set aside keeps its place, so that no other is put there."""
        for slot in self._slots:
            if slot.state is not State.IDLE or slot.serial in self._aside or slot.node in self._aside:
                continue
            node, error = self._name(slot.node), self._queue.blamed_node(slot.node)
            if error:
                self._aside.add(slot.node)
                why = f"they failed {FEW_OF_NODE} times in a row at work that others could do"
                self.notes.line(f"workers on {node} were set aside: {why}; the last error: {error}")
            elif (error := self._queue.blamed(slot.serial)) and not slot.renewed and self._queue.waiting:
                slot.renewed = True
                self.notes.line(
                    f"a worker on {node} was restarted: it failed {FEW} times at work that others could do: {error}"
                )
                self._bury(slot)
                self._place(slot)
            elif error:
                self._aside.add(slot.serial)
                self.notes.line(
                    f"a worker on {node} was set aside: it failed {FEW} times at work that others could do: {error}"
                )
        others = (State.QUEUED, State.LOADING, State.IDLE, State.WORKING)
        if not any(s.state in others and not self._blamed(s) for s in self._slots):
            self._queue.forgive()

    def _finished(self) -> list[Any]:
        """The calls that are answered, after a short wait."""
        refs = list(self._slot_of)
        ready, rest = self._ray.wait(refs, num_returns=1, timeout=1.0) if refs else ([], [])
        if not refs:
            time.sleep(0.1)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        self._watch()
        return list(ready)

    def _advance(self, slot: Slot[Unit], ref: Any, results: list[Result]) -> None:
        """Handles the answer of an actor, or its death."""
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._lost(slot, error)
            return
        if slot.state is State.PLACING:
            slot.node, slot.state = answer, State.QUEUED
            self._turns.setdefault(answer, deque()).append(slot)
            self._load_next(answer)
        elif slot.state is State.LOADING:
            self._loaded(slot, answer)
        else:
            self._worked(slot, answer, results)

    def _loaded(self, slot: Slot[Unit], failure: Failure | None) -> None:
        if failure is not None:
            error = failure.exception()
            # The user has to mend it, and another attempt would fail too; but work of other workers goes on.
            if failure.mendable and not self._working(slot) and not self._queue.succeeded:
                self._fatal = error
            self._load_failed(slot, failure.line, error, LOADS if failure.mendable else 1)
            return
        self._turns[slot.node].remove(slot)
        slot.state, slot.failed_loads, self._failed_loads = State.IDLE, 0, 0
        self._load_next(slot.node)

    def _worked(self, slot: Slot[Unit], answer: tuple[Result] | Failure, results: list[Result]) -> None:
        ticket, slot.ticket, slot.state = slot.ticket, None, State.IDLE
        assert ticket is not None
        if isinstance(answer, Failure):
            self._again(ticket, slot, answer.line)
        else:
            self._queue.done(ticket, slot.serial, slot.node)
            results.append(answer[0])

    def _again(self, ticket: Ticket[Unit], slot: Slot[Unit], error: str) -> None:
        if self._queue.failed(ticket, slot.serial, slot.node, error, self._name(slot.node)):
            self.notes.repeat(error)

    def _began(self, slot: Slot[Unit]) -> bool:
        """Whether an actor that died had begun its unit; it may have died before, unnoticed."""
        try:
            self._ray.get(slot.begun, timeout=0)
        except (self._ray.exceptions.RayError, TimeoutError):
            return False
        return True

    def _died(self, slot: Slot[Unit], reason: str) -> None:
        """Puts the unit of a dead actor back, and another actor in its place."""
        ticket, slot.ticket = slot.ticket, None
        self.notes.death(self._name(slot.node), reason)
        error = f"the worker died: {reason}"
        if ticket is not None and self._began(slot):
            self._again(ticket, slot, error)
        elif ticket is not None:
            self._queue.lost(ticket, error, self._name(slot.node))
        self._bury(slot)
        slot.replaced = True
        self._place(slot)

    def _node_gone(self, node: str) -> bool:
        """Whether the machine is gone; all its workers are then replaced at once, before one of them gets a unit."""
        try:
            gone = bool(node) and node not in {n.id for n in self._cluster.nodes()}
        except Exception:  # the cluster does not answer: each worker reports it
            return False
        for slot in [s for s in self._slots if gone and s.node == node and s.state is not State.GONE]:
            refs = [ref for ref, owner in self._slot_of.items() if owner is slot]
            if refs and self._ray.wait(refs, timeout=0)[0]:
                continue  # it may have answered before the end
            for ref in refs:
                del self._slot_of[ref]
            self._died(slot, "its machine is gone")
        return gone

    def _lost(self, slot: Slot[Unit], error: Exception) -> None:
        """Handles an actor that died, or whose answer cannot be read."""
        reason = _reason(error)
        alive = isinstance(error, self._ray.exceptions.RayTaskError)
        if not alive and self._node_gone(slot.node):
            return
        if slot.state is State.WORKING and slot.ticket is not None:
            if not alive:
                self._died(slot, reason)
                return
            ticket, slot.ticket, slot.state = slot.ticket, None, State.IDLE  # its answer could not be sent
            self._again(ticket, slot, reason)
            return
        if alive:
            fault: BaseException = ConfigError(
                f"a worker could not start: {reason}", "install the same packages on every machine"
            )
        else:
            self.notes.death(self._name(slot.node), f"while it loaded: {reason}")
            fault = ConfigError(
                f"workers died {LOADS} times while they loaded{self._on(slot.node)} ({reason}), probably out of memory",
                "use fewer --workers on a machine, a smaller --dtype or --quantization, or machines with more memory",
            )
        self._load_failed(slot, reason, fault, 1)

    def _load_failed(self, slot: Slot[Unit], line: str, error: BaseException, weight: int) -> None:
        node = self._name(slot.node)
        self._bury(slot)
        slot.failed_loads += weight
        self._failed_loads += 1
        slot.replaced = True
        if self._failed_loads >= LOADS and weight < LOADS and not self._working(slot):
            self._fatal = self._fatal or error
        if slot.failed_loads >= LOADS:
            slot.state = State.GONE
            self.notes.line(f"a worker could not start{' on ' + node if node else ''}: {line}")
            if all(s.state is State.GONE for s in self._slots):
                self._fatal = self._fatal or error
        elif self._fatal is None:
            self._place(slot)

    def _working(self, slot: Slot[Unit]) -> bool:
        """Whether any other worker is loaded."""
        return any(s.state in (State.IDLE, State.WORKING) for s in self._slots if s is not slot)

    def _watch(self) -> None:
        """Prints every half minute that no worker can be placed."""
        now = time.monotonic()
        if any(s.state not in (State.PLACING, State.GONE) for s in self._slots):
            self._without_since = math.inf
            return
        self._without_since = min(self._without_since, now)
        if now - self._without_since >= PATIENCE:
            self._without_since = now
            line = f"no worker can be placed: no node of the cluster has {self._needed.text} free; waiting for one"
            self.notes.line(line)
            self._say(line)

    def _name(self, node: str) -> str:
        """The name of a node, also of one that is gone."""
        if node and node not in self._names:
            known: list[Node] = self._cluster.nodes(dead=True)
            self._names.update({n.id: n.name for n in known})
        return self._names.get(node, "")

    def _on(self, node: str) -> str:
        return f" on {self._name(node)}" if self._name(node) else ""


def _reason(error: Exception) -> str:
    """Why an actor failed, in a few words; Ray's message has many lines."""
    from ray.exceptions import RayTaskError

    text = str(error)
    if "OutOfMemory" in text or "memory pressure" in text or "running low on memory" in text:
        return "out of memory"
    if "node has died" in text or "NodeDied" in text or "node was terminated" in text:
        return "its machine is gone"
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return one_line(error.cause)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "creation task" in text and lines:
        return lines[-1]
    return "killed, or crashed"
