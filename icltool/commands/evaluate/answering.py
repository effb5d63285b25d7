"""What the model answers in a call: asked in chunks of the executor's workers, each chunk on disk as soon as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

import numpy as np

from icltool.commands.evaluate.settings import Setting, Settings
from icltool.commands.evaluate.units import Choosing, Chunk, Conditions, CostSample, weights_last
from icltool.commands.evaluate.worker import Answered, Answering, answering
from icltool.config.env import VARIABLES
from icltool.contracts import IntArray, Progress
from icltool.contracts.evaluation import Cost, Prediction, RunFacts, SettingKey
from icltool.contracts.executor import UnitFailure
from icltool.engine.work import Work
from icltool.errors import ConfigError
from icltool.execution.running import Run
from icltool.execution.worker_context import MakeWorker, WorkerContext, worker_context
from icltool.store.evaluations import ChunkFacts, PartialAnswers
from icltool.store.failures import GivenUp

#: Queries that are answered, and safe on disk, at a time, where the batch size is small, and where it is "auto"; else so
#: many batches, that prompts can be sorted by length and share what they have in common.
CHUNK, CHUNK_OF_AUTO = 64, 512
BATCHES = 4


@dataclass
class AnswerJob:
    """What the model has to answer: a setting in its own order (0) or a further one, `chosen` int64 [Q, shots] rows of the
    index records, and the file that takes the answers. `missing` are the queries that are not answered yet, chunk by chunk.
    Of a setting that asks the model what to show, `chosen` is [Q, 0], and `among` as of a Chunk."""

    setting: Setting
    order: int
    chosen: IntArray
    part: PartialAnswers
    missing: list[range] = field(default_factory=list)
    among: IntArray | None = None

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"{self.setting.title}, order {self.order + 1}" if self.order else self.setting.title

    @property
    def done(self) -> int:
        """How many of its queries are answered."""
        return len(self.chosen) - sum(map(len, self.missing))


@dataclass(frozen=True)
class SettingAnswers:
    """The prediction rows of a setting, without scores; the seconds that answering took, how it was done
    (device, precision, weights, generation), and a remark about the intervention's prompts. `choosing_prompts` are those that
    choosing the demonstrations took."""

    rows: list[Prediction]
    seconds: float
    run: RunFacts
    remark: str
    choosing_prompts: int = 0


class Answers:
    """Everything that a call asks of the model.

    In this process settings are answered one by one, when `of` asks for them, by a worker that `open` makes. Remote workers
    answer all of them in `ask`: no worker is idle while the results of a setting are judged.
    """

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings, self.progress = settings, progress
        self.inputs, self.config = settings.inputs, settings.inputs.config
        self.total = 0
        self._here = self.config.executor_name == "local"
        self._worker: Answering | None = None
        self._jobs: list[AnswerJob] = []
        self._opened = ExitStack()
        self._run: Run[Chunk | CostSample, Answered] | None = None
        self._results: Iterator[Answered] = iter(())
        self._costs: Answered | None = None
        self._work = Work()

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # the end of the last unit is the end of the work
            for answered in self._results:
                self._take(answered)
        self._opened.__exit__(kind, error, trace)
        if self._worker is not None:
            self._worker.close(finished=error is None)

    @property
    def notes(self) -> list[str]:
        """The notes of executor and workers, once all settings are answered."""
        return [] if self._run is None else list(self._run.notes)

    @property
    def work(self) -> list[str]:
        """How much the model computed, once all settings are answered."""
        return list(self._work.lines)

    @property
    def failures(self) -> list[tuple[UnitFailure, str, GivenUp]]:
        """What was given up, with what it is called and what a list of failures holds of it."""
        return [] if self._run is None else [(failure, *self._named(failure.unit)) for failure in self._run.failures]

    def open(self, settings: Sequence[Setting]) -> None:
        """Loads the model, where this process answers. Raises ConfigError where an intervention was made for another one, and
        what loading raises."""
        if self._here:
            self._worker = Answering(self.inputs, Conditions.of_all(settings), progress=self.progress)

    def ask(self, jobs: Sequence[AnswerJob], sample: CostSample | None) -> None:
        """Begins with what is missing of these, then what settings cost. Those of other weights come last."""
        self._jobs = sorted(jobs, key=lambda one: weights_last(one.setting))
        for one in self._jobs:
            rows, ahead = self._known(one)
            lengths = {start: len(rows_ahead) for start, rows_ahead in ahead.items()}
            one.missing = self._chunks(one.setting, len(rows), len(one.chosen), lengths)
        self.total = sum(len(one.chosen) for one in self._jobs)
        units: list[Chunk | CostSample] = [*self._units(), *([] if sample is None else [sample])]
        if not units:
            return
        self._run = run = Run[Chunk | CostSample, Answered](self.config.open_executor(), self.progress)
        if self._here and self._worker is None:
            self.open([one.setting for one in self._jobs])
        if (worker := self._worker) is not None:
            self._results = self._opened.enter_context(run.results(lambda: worker, units))
            return
        done = sum(one.done for one in self._jobs)
        with self._opened:
            ticker = self._opened.enter_context(self.progress.task("answering", self.total, "queries", done=done))
            place = self._opened.enter_context(self._place(run))
            under = Conditions.of_all(one.setting for one in self._jobs)
            make = MakeWorker(partial(answering, under=under, place=place), self.config, place)
            results = self._opened.enter_context(run.results(make, units))
            for answered in results:
                run.show(ticker)
                self._take(answered)
                ticker.advance(len(answered.rows))

    def of(self, key: SettingKey, order: int = 0) -> SettingAnswers:
        """The answers to a setting, or to a further order of its demonstrations. All of them are there afterwards."""
        [one] = [one for one in self._jobs if (one.setting.key, one.order) == (key, order)]
        if one.missing:
            with self.progress.task(one.title, len(one.chosen), "queries", done=one.done) as ticker:
                while one.missing:
                    answered = next(self._results)
                    self._take(answered)
                    ticker.advance(len(answered.rows))
        rows, _ = self._known(one)
        facts = one.part.facts
        run = next((t["run"] for t in reversed(facts) if "run" in t), RunFacts())
        remark = next((t["remark"] for t in facts if t.get("remark")), "")
        prompts = sum(t.get("choosing", 0) for t in facts)
        return SettingAnswers(rows, sum(t.get("seconds", 0.0) for t in facts), run, remark, prompts)

    def costs(self) -> tuple[dict[SettingKey, Cost], dict[SettingKey, ConfigError]]:
        """(what each setting costs, why it could not be measured)."""
        while self._costs is None and (answered := next(self._results, None)) is not None:
            self._take(answered)
        if self._costs is not None:
            return self._costs.costs, self._costs.faults
        fault = ConfigError("no worker could measure it", "run the same command again")
        return {}, {group[0].key: fault for group in self.settings.groups}

    def complete(self, groups: Sequence[Sequence[Setting]]) -> list[list[Setting]]:
        """The settings none of whose answers was given up; none of a group whose first one's was: the others are set against
        it."""
        failures = () if self._run is None else self._run.failures
        lost = {self._jobs[f.unit.number].setting.key for f in failures if isinstance(f.unit, Chunk)}
        return [[s for s in group if s.key not in lost] for group in groups if group[0].key not in lost]

    def _known(self, one: AnswerJob) -> tuple[list[Prediction], dict[int, list[Prediction]]]:
        """(the first rows that are answered, chunks of those behind a gap by their first row)."""
        query_ids = self.inputs.queries.ids[self.inputs.query_rows].tolist()
        chosen: list[list[int]] = self.inputs.index.ids[one.chosen].tolist()
        icd_ids: Sequence[list[int] | None] = [None] * len(chosen) if one.setting.asks else chosen
        return one.part.resume(list(zip(query_ids, icd_ids, strict=True))), one.part.out_of_order

    def _chunks(self, setting: Setting, done: int, total: int, ahead: Mapping[int, int]) -> list[range]:
        """The queries that are asked together, of those that are missing: neither among the first `done` nor `ahead`, so many
        from each of these positions on. What is chosen jointly, by asking the model, is asked all together."""
        size = self.config.batch_size
        chunk = CHUNK_OF_AUTO if size == "auto" else max(BATCHES * size, CHUNK)
        if setting.asks and setting.method.chain is not None and setting.method.chain.joint:
            chunk = max(total, 1)
        chunks, low = [], done
        for start in [*sorted(ahead), total]:
            chunks += [range(first, min(first + chunk, start)) for first in range(low, start, chunk)]
            low = start + ahead.get(start, 0)
        return chunks

    def _units(self) -> Iterator[Chunk]:
        for number, one in enumerate(self._jobs):
            setting = one.setting
            under = Conditions.of(setting.method)
            choosing = Choosing.of(setting, self.settings.reverses(setting.method)) if setting.asks else None
            for chunk in one.missing:
                part = slice(chunk.start, chunk.stop)
                among = None if one.among is None else one.among[part]
                rows = self.inputs.query_rows[part]
                yield Chunk(number, chunk.start, rows, one.chosen[part], under, choosing, among)

    def _place(self, run: Run[Chunk | CostSample, Answered]) -> AbstractContextManager[WorkerContext]:
        """The place that workers are told; what it sends are the images of all prompts, and files of vectors and weights."""
        inputs, methods = self.inputs, [group[0].method for group in self.settings.groups]
        rows = np.unique(np.concatenate([np.empty(0, np.int64), *map(self._demonstration_rows, self._jobs)]))
        images = [image for row in rows for image in inputs.index.image_lists[row]]
        chains = [one.setting.method.chain for one in self._jobs if one.setting.asks]
        encoders = {part.encoder for chain in chains if chain for part in chain.parts[chain.asking :]} - {None}
        embeddings = [inputs.embeddings(split, name).path for name in encoders if name for split in inputs.splits]
        queries = [image for row in inputs.query_rows for image in inputs.queries.image_lists[row]]
        files = [m.weights for m in methods if m.weights is not None]
        files += [] if self.config.index_subset is None else [self.config.index_subset]
        files += [m.intervention.file for m in methods if m.intervention is not None]
        return worker_context(
            run.executor,
            inputs.dataset.folder,
            [*images, *queries],
            embeddings,
            files=files,
            ship=self.config.ship_data,
            variables=VARIABLES,
        )

    def _demonstration_rows(self, one: AnswerJob) -> IntArray:
        """The rows of the index records that its prompts can show, int64 [n]."""
        if not one.setting.asks:
            return one.chosen.reshape(-1)
        return self.inputs.index_rows if one.among is None else self.inputs.index_rows[one.among[one.among >= 0]]

    def _take(self, answered: Answered) -> None:
        """Puts what came where it belongs."""
        self._work += answered.work
        unit = answered.unit
        if isinstance(unit, CostSample):
            self._costs = answered
            return
        one = self._jobs[unit.number]
        facts: ChunkFacts = {"seconds": answered.seconds, "remark": answered.remark, "run": answered.run}
        if answered.choosing_prompts:
            facts["choosing"] = answered.choosing_prompts
        one.part.append(answered.rows, unit.start, facts)
        one.missing = [chunk for chunk in one.missing if chunk.start != unit.start]

    def _named(self, unit: Chunk | CostSample) -> tuple[str, GivenUp]:
        """(what the unit is called, what a list of failures holds of it)."""
        if isinstance(unit, CostSample):
            return "costs", {"costs": True, "count": 0}
        one = self._jobs[unit.number]
        ids = self.inputs.queries.ids[unit.query_rows].tolist()
        name = f"queries {unit.start} to {unit.start + len(ids) - 1} of {one.title}"
        return name, {"setting": one.title, "queries": ids, "count": len(ids)}
