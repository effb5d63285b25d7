"""Two workers on Ray against one, each with one thread, on a real search; and what handing over a unit costs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from icltool.components.executors.local import LocalExecutor
from icltool.components.executors.ray import RayExecutor, RayOptions
from icltool.contracts import Example, GenerationOptions
from tests.benchmarks.engine.data import make_run

pytest.importorskip("ray")

pytestmark = pytest.mark.benchmark

ANCHORS, CANDIDATES, SHOTS, BEAMS, IDLE_UNITS = 16, 8, 3, 2, 500
#: Where workers run: Ray is started on this machine.
CLUSTER: dict[str, Any] = {}
Anchor = tuple[Example, Sequence[Example]]


@dataclass(frozen=True)
class Found:
    """The sequences of an anchor, and when the process `pid` was at it."""

    query: int
    ids: tuple[tuple[int, ...], ...]
    pid: int
    begun: float
    ended: float


def make_searcher() -> Callable[[Anchor], Found]:
    """A beam search with a tiny model, as generate does it."""
    import torch

    from icltool.engine.beam import BeamSearch, SearchOptions
    from icltool.engine.opening import open_session
    from icltool.plugin.manager import component

    torch.set_num_threads(1)
    model = component("models", "tiny-idefics", device="cpu")
    session = open_session("caption", model, GenerationOptions(8), 32, 2**28)
    search = BeamSearch(component("scorers", "infoscore"), session, SearchOptions(SHOTS, BEAMS))

    def work(anchor: Anchor) -> Found:
        begun = time.time()
        result = search.search(*anchor)
        ids = tuple(tuple(int(i) for i in beam) for beam in result.icd_ids)
        return Found(anchor[0].id, ids, os.getpid(), begun, time.time())

    return work


def make_idler() -> Callable[[int], int]:
    return int


def rate(results: Sequence[Found]) -> tuple[float, float]:
    """(units per second, share of that time in which workers are at a unit) while all workers work: what loading takes at
    the begin, and one works alone at the end, is left out."""
    pids = {f.pid for f in results}
    low = max(min(f.begun for f in results if f.pid == pid) for pid in pids)
    high = min(max(f.ended for f in results if f.pid == pid) for pid in pids)
    inside = [max(0.0, min(f.ended, high) - max(f.begun, low)) for f in results]
    done = sum(seconds / (f.ended - f.begun) for f, seconds in zip(results, inside, strict=True))
    return done / (high - low), sum(inside) / (len(pids) * (high - low))


def _run(executor: Any, anchors: Sequence[Anchor], workers: int = 1) -> list[Found]:
    """What is found for each anchor; for all of them once more where only some of the workers were there in time."""
    results: list[Found] = []

    def units() -> Iterator[Anchor]:
        yield from anchors
        while len({f.pid for f in results}) < workers:
            yield from anchors

    for one in executor.run(make_searcher, units()):
        results.append(one)
    return results


def _sequences(results: Sequence[Found]) -> dict[int, set[tuple[tuple[int, ...], ...]]]:
    """By query all answers, which should be one."""
    return {query: {f.ids for f in results if f.query == query} for query in {f.query for f in results}}


def test_two_workers_against_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints anchors per second of both, and their ratio. What is found must be equal; no time is asserted."""
    units = make_run(tmp_path / "images", ANCHORS, CANDIDATES).anchors
    alone = _run(LocalExecutor(), units)
    one, two = (_run(RayExecutor(RayOptions(workers=workers, **CLUSTER)), units, workers) for workers in (1, 2))
    assert len({f.pid for f in two}) == 2
    assert len(alone) == len(units)
    assert _sequences(one) == _sequences(two) == {f.query: {f.ids} for f in alone}
    here, (single, _), (both, busy) = rate(alone)[0], rate(one), rate(two)
    with capsys.disabled():
        print(
            f"\n{ANCHORS} anchors of {CANDIDATES} candidates, {SHOTS} shots, {BEAMS} beams: {here:.2f} anchors/s in this "
            f"process, {single:.2f} with one worker on Ray, {both:.2f} with two; efficiency of two {both / (2 * single):.0%} "
            f"on {len(os.sched_getaffinity(0))} processors, workers at work {busy:.1%} of the time"
        )


def test_what_a_unit_costs(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the time of units without work, from the first result on."""
    results = RayExecutor(RayOptions(workers=1, **CLUSTER)).run(make_idler, range(IDLE_UNITS + 1))
    next(results)
    start = time.perf_counter()
    for _ in range(IDLE_UNITS):
        next(results)
    each = (time.perf_counter() - start) / IDLE_UNITS
    assert list(results) == []
    with capsys.disabled():
        print(f"\nhanding a unit to a worker on Ray and its result back: {1000 * each:.1f} ms")
