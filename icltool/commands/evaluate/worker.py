"""Workers of `icltool evaluate`: each holds the model and answers chunks of queries."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icltool.commands.evaluate.answering import Answerer
from icltool.commands.evaluate.costs import CostOf, measured_together
from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.interventions import INTERVENTIONS, other_template
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.contracts import IntArray, Intervention
from icltool.engine.work import Work
from icltool.execution.progress import SilentProgress
from icltool.execution.worker_context import WorkerContext
from icltool.plugin.manager import component
from icltool.store.prepared import moved_picture

if TYPE_CHECKING:
    from icltool.commands.evaluate.methods import Method
    from icltool.commands.evaluate.settings import Key


@dataclass(frozen=True)
class Conditions:
    """What the model answers under: a file of fine-tuned weights, or the registered name and the options (JSON) of an
    intervention, its file among them; neither: as it is."""

    weights: Path | None = None
    intervention: str = ""
    options: str = "{}"
    label: str = ""

    @classmethod
    def of(cls, method: Method) -> Conditions:
        """Those of a method."""
        if method.intervention is None:
            return cls(method.weights)
        return cls(None, method.identity["intervention"], json.dumps(method.options), method.label)


@dataclass(frozen=True)
class Chunk:
    """The unit of work: queries that are answered together, those from number `start` of task `number` on. `query_rows`
    int64 [n], `chosen` int64 [n, shots] rows of the index records in prompt order."""

    number: int
    start: int
    query_rows: IntArray
    chosen: IntArray
    under: Conditions


@dataclass(frozen=True)
class CostSample:
    """The unit of work that measures what settings cost: all by one worker, so that they can be compared. `query_rows`
    int64 [n]; for each setting its key, its conditions and `chosen` int64 [n, shots]."""

    query_rows: IntArray
    settings: tuple[tuple[Key, Conditions, IntArray], ...]


@dataclass(frozen=True)
class Answered:
    """The prediction rows of a chunk, or the costs of a sample with those that could not be measured; the work that it took;
    a remark about the intervention's prompts."""

    unit: Chunk | CostSample
    work: Work
    rows: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    remark: str = ""
    costs: dict[Key, dict[str, Any]] = field(default_factory=dict)
    faults: dict[Key, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MakeAnswering:
    """Makes a worker; travels to where it is made. `under` are the conditions of all chunks, in their order."""

    config: EvaluateConfig
    place: WorkerContext = field(default_factory=WorkerContext.here)
    under: tuple[Conditions, ...] = ()

    def __call__(self) -> Answering:
        return Answering(self.place.enter(self.config), self.place, self.under)


class Answering:
    """A worker: the model is loaded with it, with the weights of the first chunks. Raises ConfigError where an intervention was
    made for another model."""

    def __init__(self, config: EvaluateConfig, place: WorkerContext, under: Sequence[Conditions]) -> None:
        self._inputs, self._place = Inputs(config), place
        self._answerer = Answerer(self._inputs, SilentProgress())
        self._interventions: dict[Conditions, Intervention] = {}
        self._answerer.use(self._weights(under[0]) if under else None)
        model = self._answerer.session().model
        assert model is not None
        for conditions in under:
            if (intervention := self._opened(conditions)) is not None:
                intervention.check(model)

    @property
    def notes(self) -> Sequence[str]:
        return self._answerer.remarks

    def expect(self, unit: Chunk | CostSample) -> None:
        """Has the chunk's images read ahead, once there is a model with the same weights to read them."""
        if isinstance(unit, Chunk) and self._answerer.ready(self._weights(unit.under)):
            self._answerer.expect(unit.query_rows, unit.chosen)

    def __call__(self, unit: Chunk | CostSample) -> Answered:
        self._answerer.use(self._weights(unit.under) if isinstance(unit, Chunk) else None)
        session = self._answerer.session()
        before, began = session.done, time.perf_counter()
        if isinstance(unit, CostSample):
            asked = [CostOf(key, self._weights(c), self._opened(c), chosen) for key, c, chosen in unit.settings]
            found, faults = measured_together(self._answerer, unit.query_rows, asked)
            return Answered(unit, Work(), costs=found, faults=faults)
        intervention, remark = self._opened(unit.under), ""
        if intervention is not None:
            assert session.model is not None
            remark = other_template(unit.under.label, intervention, session.model)
        with nullcontext() if intervention is None else session.steered(intervention):
            rows = self._answerer.rows(unit.query_rows, unit.chosen)
        if back := {here: there for there, here in self._inputs.dataset.moved.items()}:
            rows = [{**row, "images": [moved_picture(image, back) for image in row["images"]]} for row in rows]
        return Answered(unit, session.done - before, tuple(rows), time.perf_counter() - began, remark)

    def close(self, finished: bool) -> None:
        self._answerer.close(finished)

    def _opened(self, under: Conditions) -> Intervention | None:
        if not under.intervention:
            return None
        if under not in self._interventions:
            options = json.loads(under.options)
            options["file"] = str(self._place.file(Path(options["file"])))
            self._interventions[under] = component(INTERVENTIONS, under.intervention, **options)
        return self._interventions[under]

    def _weights(self, under: Conditions) -> Path | None:
        return None if under.weights is None else self._place.file(under.weights)
