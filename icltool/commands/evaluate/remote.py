"""Answers of all settings of a call, made by the workers of an executor before the results are judged here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from icltool.commands.evaluate.costs import to_measure
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.results import Asked, Results
from icltool.commands.evaluate.settings import Setting, Settings
from icltool.commands.evaluate.worker import Answered, Chunk, Conditions, CostSample, MakeAnswering
from icltool.config.env import VARIABLES
from icltool.contracts import Progress
from icltool.contracts.executor import UnitFailure
from icltool.engine.work import Work
from icltool.errors import ConfigError
from icltool.execution.running import Run
from icltool.execution.worker_context import WorkerContext, place_of_work


@dataclass
class Elsewhere:
    """What came of it: the number of answers that were asked for, remarks, what was given up with what it is called, and which
    answers are not all there."""

    asked: int
    notes: list[str]
    failures: list[tuple[UnitFailure, str, dict[str, Any]]]
    incomplete: list[Asked]

    def complete(self, groups: Sequence[Sequence[Setting]]) -> list[list[Setting]]:
        """The settings whose answers are all there; none of a group whose first is not, which the others are set against."""
        lost = {asked.setting.key for asked in self.incomplete}
        return [[s for s in group if s.key not in lost] for group in groups if group[0].key not in lost]


def answer_elsewhere(work: Results, settings: Settings, progress: Progress) -> Elsewhere:
    """Has workers answer what is missing; each chunk is on disk as soon as it comes. Settings follow one another without
    waiting, so that no worker is idle while another finishes a setting; those of other weights come last.

    Results then finds all answers in the part files. What costs are to be measured is, by one worker.
    """
    config, answerer = settings.inputs.config, work.answerer
    asked = sorted(work.to_answer(), key=lambda one: str(one.setting.method.weights or ""))
    missing = []
    for one in asked:
        rows, ahead = answerer.known(one.chosen, one.part)
        missing.append(answerer.chunks(len(rows), len(one.chosen), {k: len(found) for k, found in ahead.items()}))
        told = one.part.told
        remark = next((t["remark"] for t in told if t.get("remark")), "")
        answerer.elsewhere[one.part.path] = (sum(t.get("seconds", 0.0) for t in told), remark)
    run = Run[Chunk | CostSample, Answered](config.open_executor(), progress)
    done = Work()
    total, left = sum(len(one.chosen) for one in asked), sum(len(chunk) for chunks in missing for chunk in chunks)
    with ExitStack() as opened:
        units: list[Chunk | CostSample] = [*_chunks(asked, missing, settings), *_costs(work, settings)]
        if units:
            ticker = opened.enter_context(progress.task("answering", total, "queries", done=total - left))
            place = opened.enter_context(_place(config, run, asked, settings))
            under = tuple(dict.fromkeys(Conditions.of(one.setting.method) for one in asked))
            for answered in opened.enter_context(run.results(MakeAnswering(config, place, under), units)):
                done += answered.work
                run.show(ticker)
                _take(answered, asked, work)
                ticker.advance(len(answered.rows))
    failures = [(failure, *_named(failure.unit, asked, settings)) for failure in run.failures]
    if any(isinstance(failure.unit, CostSample) for failure in run.failures):
        _without_costs(work, settings)
    lost = [asked[failure.unit.number] for failure in run.failures if isinstance(failure.unit, Chunk)]
    return Elsewhere(total, [*run.notes, *done.lines], failures, lost)


def _place(
    config: EvaluateConfig, run: Run[Any, Any], asked: Sequence[Asked], settings: Settings
) -> AbstractContextManager[WorkerContext]:
    """The place that workers are told; what it sends are the pictures of all prompts, and files of vectors and weights."""
    inputs, methods = settings.inputs, [group[0].method for group in settings.groups]
    rows: Any = np.unique(np.concatenate([one.chosen.reshape(-1) for one in asked])) if asked else ()
    shown = [inputs.index.images[row] for row in rows]
    queries = [inputs.queries.images[row] for row in inputs.query_rows]
    files = [m.weights for m in methods if m.weights is not None]
    files += [m.intervention.file for m in methods if m.intervention is not None]
    return place_of_work(
        run.executor,
        inputs.dataset.folder,
        [*shown, *queries],
        files=files,
        ship=config.ship_data,
        variables=VARIABLES,
    )


def _chunks(asked: Sequence[Asked], missing: Sequence[Sequence[range]], settings: Settings) -> Iterator[Chunk]:
    query_rows = settings.inputs.query_rows
    for number, (one, chunks) in enumerate(zip(asked, missing, strict=True)):
        under = Conditions.of(one.setting.method)
        for chunk in chunks:
            part = slice(chunk.start, chunk.stop)
            yield Chunk(number, chunk.start, query_rows[part], one.chosen[part], under)


def _costs(work: Results, settings: Settings) -> Iterator[CostSample]:
    """At most one: all settings, measured by one worker."""
    if work.uncosted():
        query_rows, measured = to_measure(settings)
        methods = {group[0].key: group[0].method for group in settings.groups}
        yield CostSample(query_rows, tuple((one.key, Conditions.of(methods[one.key]), one.chosen) for one in measured))


def _take(answered: Answered, asked: Sequence[Asked], work: Results) -> None:
    """Puts what came where it belongs."""
    unit = answered.unit
    if isinstance(unit, CostSample):
        work.costs.take(answered.costs, answered.faults)
        return
    part = asked[unit.number].part
    part.append(answered.rows, unit.start, {"seconds": answered.seconds, "remark": answered.remark})
    seconds, remark = work.answerer.elsewhere[part.path]
    work.answerer.elsewhere[part.path] = (seconds + answered.seconds, remark or answered.remark)


def _without_costs(work: Results, settings: Settings) -> None:
    fault = ConfigError("no worker could measure it", "run the same command again")
    work.costs.take({}, {group[0].key: fault for group in settings.groups})


def _named(unit: Chunk | CostSample, asked: Sequence[Asked], settings: Settings) -> tuple[str, dict[str, Any]]:
    """(what the unit is called, what a list of failures holds of it)."""
    if isinstance(unit, CostSample):
        return "costs", {"costs": True, "count": 0}
    one = asked[unit.number]
    ids = settings.inputs.queries.ids[unit.query_rows].tolist()
    name = f"queries {unit.start} to {unit.start + len(ids) - 1} of {one.title}"
    return name, {"setting": one.title, "queries": ids, "count": len(ids)}
