"""Workers of `icltool evaluate`: each holds the model and answers chunks of queries."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from icltool.commands.evaluate.costs import measured_together
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.interventions import INTERVENTIONS, other_template
from icltool.commands.evaluate.methods import RetrieverPart
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.evaluate.predictions import predicted
from icltool.commands.evaluate.units import AskingPart, Choosing, Chunk, Conditions, CostSample
from icltool.contracts import IndexSet, IntArray, Intervention, Model, Progress, QuerySet, ScoringRequest
from icltool.contracts.evaluation import Cost, Prediction, RunFacts, SettingKey
from icltool.contracts.model import HasPrecision
from icltool.engine.choices import best_choice, rank_choices
from icltool.engine.choosing import Chain, Handed, ModelForChoosing
from icltool.engine.devices import device_of
from icltool.engine.generation import generation_options
from icltool.engine.session import Session
from icltool.engine.work import Work
from icltool.errors import ConfigError
from icltool.execution.progress import SilentProgress
from icltool.execution.worker_context import WorkerContext
from icltool.plugin.manager import component
from icltool.store.arrays import StoredExamples
from icltool.store.prepared import moved_image


@dataclass(frozen=True)
class Answered:
    """The prediction rows of a chunk, or the costs of a sample with those that could not be measured; the work that it took;
    `run`, how the worker answers (see `_about`); a remark about the intervention's prompts; `choosing_prompts`, those that
    choosing the demonstrations took."""

    unit: Chunk | CostSample
    work: Work = field(default_factory=Work)
    rows: tuple[Prediction, ...] = ()
    seconds: float = 0.0
    remark: str = ""
    run: RunFacts = field(default_factory=RunFacts)
    choosing_prompts: int = 0
    costs: dict[SettingKey, Cost] = field(default_factory=dict)
    faults: dict[SettingKey, ConfigError] = field(default_factory=dict)


class Answering:
    """A worker: the model is loaded with it, with the weights of the first of `under`, the conditions of all chunks in their
    order. Raises ConfigError where an intervention was made for another model."""

    def __init__(
        self,
        inputs: Inputs,
        under: Sequence[Conditions],
        place: WorkerContext | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.inputs, self.progress = inputs, progress or SilentProgress()
        self.weights: Path | None = None
        self._place = place or WorkerContext.here()
        self._session: Session | None = None
        self._about = RunFacts()
        self._notes: list[str] = []
        self._interventions: dict[Conditions, Intervention] = {}
        self._chains: dict[Choosing, Chain[RetrieverPart]] = {}
        self.use(under[0].weights if under else None)
        model = self.session().model
        assert model is not None
        for conditions in under:
            if (intervention := self._opened(conditions)) is not None:
                intervention.check(model)

    @property
    def notes(self) -> Sequence[str]:
        """What the sessions had to say about memory."""
        return [*self._notes, *(() if self._session is None else self._session.notes)]

    def expect(self, unit: Chunk | CostSample) -> None:
        """Has the chunk's images read ahead, once there is a model with the same weights to read them."""
        if isinstance(unit, Chunk) and self._session is not None and self.weights == unit.under.weights:
            rows = unit.chosen
            if unit.among is not None:
                rows = np.where(unit.among < 0, unit.among, self.inputs.index_rows[unit.among])
            for row, demonstrations in zip(unit.query_rows, rows, strict=True):
                examples = self.inputs.index.rows(demonstrations[demonstrations >= 0])
                self._session.expect([*examples, self.inputs.queries[row]])

    def __call__(self, unit: Chunk | CostSample) -> Answered:
        if isinstance(unit, CostSample):
            costs, faults = measured_together(self, unit)
            return Answered(unit, costs=costs, faults=faults)
        self.use(unit.under.weights)
        session = self.session()
        before, began = session.done, time.perf_counter()
        prompts = 0
        with self.applying(unit.under):
            if unit.choosing is not None:
                unit, prompts = (
                    replace(unit, chosen=self._chosen(unit, unit.choosing)),
                    session.prompts_scored - before.prompts,
                )
            rows = self._answers(unit)
        seconds = time.perf_counter() - began
        if back := {here: there for there, here in self.inputs.dataset.moved.items()}:
            rows = [{**row, "images": [moved_image(image, back) for image in row["images"]]} for row in rows]
        remark = self._remark(unit.under)
        return Answered(unit, session.done - before, tuple(rows), seconds, remark, self._about, prompts)

    def close(self, finished: bool) -> None:
        """Ends what works beside the session."""
        if self._session is not None:
            self._notes = list(self.notes)
            self._session.close(finished)
            self._session = None

    def use(self, weights: Path | None) -> None:
        """Answers come from the model with these weights from now on, None for its own. What was loaded before is let go."""
        if weights != self.weights:
            self.close(finished=True)
            self.weights = weights

    def session(self) -> Session:
        """The session; its model is loaded when it is first asked for."""
        if self._session is None:
            config, task = self.inputs.config, self.inputs.task
            file = None if self.weights is None else self._place.file(self.weights)
            self.progress.detail(f"loading {config.model_name}" + (f" with {file}" if file else ""))
            model = config.open_model(task, **({"path": str(file)} if file else {}))
            self._session = config.open_session(task, model, generation_options(config.generation(), task, model))
            self._about = _about(model, self._session)
        return self._session

    def applying(self, under: Conditions) -> AbstractContextManager[None]:
        """Within it the model answers under the intervention of these conditions, if there is one."""
        intervention = self._opened(under)
        return nullcontext() if intervention is None else self.session().applying(intervention)

    def _chosen(self, unit: Chunk, choosing: Choosing) -> IntArray:
        """int64 [n, count]: the demonstrations that the chunk's methods choose, rows of the index records in prompt order."""
        inputs, session = self.inputs, self.session()
        if choosing not in self._chains:
            self._chains[choosing] = Chain([_built(part) for part in choosing.parts])
        positions = np.searchsorted(inputs.query_rows, unit.query_rows)

        def arrays(part: RetrieverPart) -> tuple[IndexSet, QuerySet]:
            index, queries = inputs.arrays(part.needs, part.encoder)
            return index, queries.take(positions)

        chain = self._chains[choosing]
        index, _ = inputs.arrays(chain.parts[0].needs, chain.parts[0].encoder)
        examples = StoredExamples(inputs.index, inputs.index_rows, inputs.queries, unit.query_rows)
        session.reset()
        session.keeps_prefixes = True
        try:
            handed = Handed(unit.among, examples, ModelForChoosing(session, index))
            rows = chain.retrieve(arrays, choosing.count, choosing.seed, handed)
        finally:
            session.keeps_prefixes = False
        return inputs.index_rows[rows[:, ::-1] if choosing.reverses else rows]

    def _answers(self, unit: Chunk) -> list[Prediction]:
        """Rows without scores of the chunk's queries."""
        queries, index, session = self.inputs.queries.rows(unit.query_rows), self.inputs.index, self.session()
        requests = [ScoringRequest(q, tuple(index.rows(d))) for q, d in zip(queries, unit.chosen, strict=True)]
        full = requests
        if not unit.chosen.shape[1] and not unit.under.intervention:
            texts = self.inputs.text_demonstrations(unit.query_rows)
            full = [replace(r, demonstrations=examples) for r, examples in zip(requests, texts, strict=True)]
        session.reset()  # so that an answer depends on its own chunk alone, wherever a run began
        if not self.inputs.task.ranked:
            generated = session.generations(full)
            return [predicted(r, prompt, raw, text) for r, (prompt, raw, text) in zip(requests, generated, strict=True)]
        rows = []
        for request, whole, log_probs in zip(requests, full, rank_choices(session, full), strict=True):
            best = best_choice(log_probs)
            rows.append(predicted(request, session.prompt(whole), best, best, log_probs))
        return rows

    def _opened(self, under: Conditions) -> Intervention | None:
        if not under.intervention:
            return None
        if under not in self._interventions:
            options = json.loads(under.options)
            options["file"] = str(self._place.file(Path(options["file"])))
            self._interventions[under] = component(INTERVENTIONS, under.intervention, **options)
        return self._interventions[under]

    def _remark(self, under: Conditions) -> str:
        intervention, model = self._opened(under), self.session().model
        if intervention is None or model is None:
            return ""
        return other_template(under.label, intervention, model)


def _built(part: AskingPart) -> RetrieverPart:
    """The method, built again."""
    options = json.loads(part.options)
    retriever = component("retrievers", part.registered, **options)
    return RetrieverPart(part.name, retriever, part.registered, options, {}, part.encoder, (), "")


def _about(model: Model, session: Session) -> RunFacts:
    """How a worker answers: device, precision and generation as they were resolved, and what stands for weights, precision and
    prompt format."""
    return {
        "device": str(device_of(model) or ""),
        "precision": model.precision if isinstance(model, HasPrecision) else "",
        "weights": model.fingerprint(),
        "generation": {**session.generation.record()},
    }


def answering(config: EvaluateConfig, under: Sequence[Conditions], place: WorkerContext) -> Answering:
    """A worker that opens the inputs itself."""
    if config.index_subset is not None:
        config = config.model_copy(update={"index_subset": place.file(config.index_subset)})
    return Answering(Inputs(config), under, place)
