"""What each setting costs per query, beside what it achieves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from icltool.commands.evaluate.answering import Answerer
from icltool.commands.evaluate.settings import Key, Setting, Settings
from icltool.contracts import IntArray, Intervention, ScoringRequest, keyed_generator
from icltool.engine.query_cost import QueryCost, pooled, query_cost
from icltool.errors import ConfigError
from icltool.store.evaluations import SettingResult

#: Queries that are answered alone for each setting, the same for all, at most; and the seconds after which no further one
#: is begun, of all settings together.
SAMPLE, BUDGET = 8, 60.0


def wanted(settings: Settings) -> bool:
    """Whether costs are measured: as asked for, else where a method stands in for demonstrations."""
    asked = settings.inputs.config.cost
    return any(method.intervention is not None for method in settings.methods) if asked is None else asked


def sample(count: int) -> IntArray:
    """int64: positions of the queries that are measured, ascending."""
    return np.sort(keyed_generator(0, "evaluate.cost").permutation(count)[:SAMPLE]).astype(np.int64)


def firsts(settings: Settings) -> list[Setting]:
    """The settings that are measured: of several seeds the first."""
    return [group[0] for group in settings.groups]


def set_apart(kept: dict[Key, SettingResult], settings: Settings) -> None:
    """Takes away the costs of the call's settings, unless all of them were measured in one call: what else the machine
    did then is in the seconds of all alike. Does nothing where no costs are wanted."""
    if not wanted(settings):
        return
    shown = [s.key for s in firsts(settings) if s.key in kept and kept[s.key].extra.get("digest", s.digest) == s.digest]
    calls = {kept[key].extra.get("cost", {}).get("call") for key in shown}
    if len(shown) == len(settings.groups) and len(calls) == 1 and None not in calls:
        return
    for key in shown:
        kept[key] = replace(kept[key], extra={k: v for k, v in kept[key].extra.items() if k != "cost"})


@dataclass(frozen=True)
class CostOf:
    """A setting that is measured: its key, what it answers under, and `chosen` int64 [n, shots], the demonstrations of the
    sample's queries."""

    key: Key
    weights: Path | None
    intervention: Intervention | None
    chosen: IntArray


class Costs:
    """What the settings of a call cost, measured together when the first is asked for."""

    def __init__(self, settings: Settings, answerer: Answerer) -> None:
        self.settings, self.answerer = settings, answerer
        self._found: dict[Key, dict[str, Any]] = {}
        self._faults: dict[Key, ConfigError] = {}

    def take(self, found: Mapping[Key, dict[str, Any]], faults: Mapping[Key, ConfigError]) -> None:
        """What was measured elsewhere."""
        self._found, self._faults = dict(found), dict(faults)

    def of(self, setting: Setting) -> dict[str, Any]:
        """{"queries", "device", "prompt_tokens", "flops", "seconds", "call"}; "uncounted" names what FLOPs are without,
        "call" is when it was measured, the same for all settings of a call. Raises ConfigError where a prompt alone does
        not fit in memory."""
        if not self._found and not self._faults:
            query_rows, asked = to_measure(self.settings)
            self._found, self._faults = measured_together(self.answerer, query_rows, asked)
        if setting.key in self._faults:
            raise self._faults[setting.key]
        return self._found[setting.key]


def to_measure(settings: Settings) -> tuple[IntArray, list[CostOf]]:
    """(rows of the sample's queries, the settings that are measured)."""
    places = sample(len(settings.inputs.query_rows))
    asked = [
        CostOf(s.key, s.method.weights, s.method.intervention, settings.demonstrations(s)[places])
        for s in firsts(settings)
    ]
    return settings.inputs.query_rows[places], asked


def measured_together(
    answerer: Answerer, query_rows: IntArray, asked: Sequence[CostOf]
) -> tuple[dict[Key, dict[str, Any]], dict[Key, ConfigError]]:
    """(costs by setting, what could not be measured): the first query by every setting of the same weights, then the
    second, and so on, so that other work on the machine slows all of them alike. The first weights are measured until
    their share of BUDGET is spent, on one query at least; the others on the same queries."""
    inputs = answerer.inputs
    queries = inputs.queries.rows(query_rows)
    counts = inputs.config.quantization is None  # kernels for packed weights are counted by nobody
    parts: dict[Key, list[QueryCost]] = {one.key: [] for one in asked}
    faults: dict[Key, ConfigError] = {}
    weights_first = sorted({one.weights for one in asked}, key=lambda weights: str(weights or ""))
    order = sorted(weights_first, key=lambda weights: weights != answerer.weights)  # what is loaded first
    several = len(queries)
    with answerer.progress.task("cost per query", several * len(asked), "answers") as ticker:
        for weights in order:
            answerer.use(weights)
            of_weights = [one for one in asked if one.weights == weights]
            started = time.monotonic()
            for position in range(several):
                for one in of_weights:
                    if one.key not in faults:
                        shown = tuple(inputs.index.rows(one.chosen[position]))
                        try:
                            parts[one.key].append(
                                _cost(answerer, one, ScoringRequest(queries[position], shown), counts)
                            )
                        except ConfigError as error:
                            faults[one.key] = error
                    ticker.advance(1)
                if weights == order[0] and time.monotonic() - started >= BUDGET / len(order):
                    several = position + 1
                    break
            ticker.advance((len(queries) - several) * len(of_weights))
    call = datetime.now(timezone.utc).isoformat()
    uncounted = {"uncounted": "attention"} if inputs.config.attention == "flash_attention_2" and counts else {}
    found = {
        key: {**asdict(pooled(costs)), "call": call, **uncounted} for key, costs in parts.items() if key not in faults
    }
    return found, faults


def _cost(answerer: Answerer, one: CostOf, request: ScoringRequest, counts: bool) -> QueryCost:
    session = answerer.session()
    with nullcontext() if one.intervention is None else session.steered(one.intervention):
        return query_cost(session, [request], answerer.inputs.task.ranked, counts)
