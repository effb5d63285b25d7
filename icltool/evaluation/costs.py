"""What each setting costs per query, beside what it achieves."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icltool.contracts import IntArray, ScoringRequest, keyed_generator
from icltool.engine.query_cost import QueryCost, pooled, query_cost
from icltool.errors import ConfigError
from icltool.evaluation.settings import Key, Setting, Settings
from icltool.store.evaluations import SettingResult

if TYPE_CHECKING:
    from icltool.evaluation.answering import Answerer

#: Queries that are answered alone for each setting, the same for all.
SAMPLE = 8


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
    shown = [key for s in firsts(settings) if (key := s.key) in kept]
    calls = {kept[key].extra.get("cost", {}).get("call") for key in shown}
    if len(shown) == len(settings.groups) and len(calls) == 1 and None not in calls:
        return
    for key in shown:
        kept[key] = replace(kept[key], extra={k: v for k, v in kept[key].extra.items() if k != "cost"})


class Costs:
    """What the settings of a call cost, measured together when the first is asked for: the first query by every setting
    of the same weights, then the second, and so on, so that other work on the machine slows all of them alike."""

    def __init__(self, settings: Settings, answerer: Answerer) -> None:
        self.settings, self.progress, self.answerer = settings, answerer.progress, answerer
        self._found: dict[Key, dict[str, Any]] = {}
        self._faults: dict[Key, ConfigError] = {}

    def of(self, setting: Setting) -> dict[str, Any]:
        """{"queries", "device", "prompt_tokens", "flops", "seconds", "call"}; "uncounted" names what FLOPs are without,
        "call" is when it was measured, the same for all settings of a call. Raises ConfigError where a prompt alone does
        not fit in memory."""
        if not self._found and not self._faults:
            self._measure()
        if setting.key in self._faults:
            raise self._faults[setting.key]
        return self._found[setting.key]

    def _measure(self) -> None:
        inputs, asked = self.settings.inputs, firsts(self.settings)
        places = sample(len(inputs.query_rows))
        queries = inputs.queries.rows(inputs.query_rows[places])
        chosen = {s.key: self.settings.demonstrations(s)[places] for s in asked}
        parts: dict[Key, list[QueryCost]] = {s.key: [] for s in asked}
        with self.progress.task("cost per query", len(queries) * len(asked), "answers") as ticker:
            order = sorted(
                _by_weights(asked), key=lambda weights: weights != self.answerer.weights
            )  # what is loaded first
            for weights, position in [(w, p) for w in order for p in range(len(queries))]:
                self.answerer.use(weights)
                query = queries[position]
                for setting in (s for s in asked if s.method.weights == weights):
                    if setting.key not in self._faults:
                        request = ScoringRequest(query, tuple(inputs.index.rows(chosen[setting.key][position])))
                        try:
                            parts[setting.key].append(self._one(setting, request))
                        except ConfigError as error:
                            self._faults[setting.key] = error
                    ticker.advance(1)
        counts, call = self._counts(), datetime.now(timezone.utc).isoformat()
        uncounted = {"uncounted": "attention"} if inputs.config.attention == "flash_attention_2" and counts else {}
        self._found = {
            key: {**asdict(pooled(found)), "call": call, **uncounted}
            for key, found in parts.items()
            if key not in self._faults
        }

    def _one(self, setting: Setting, request: ScoringRequest) -> QueryCost:
        session, intervention = self.answerer.session(), setting.method.intervention
        with nullcontext() if intervention is None else session.steered(intervention):
            return query_cost(session, [request], self.settings.inputs.task.ranked, self._counts())

    def _counts(self) -> bool:
        """Whether FLOPs are counted: kernels for packed weights are counted by nobody."""
        return self.settings.inputs.config.quantization is None


def _by_weights(settings: list[Setting]) -> list[Path | None]:
    """The different weights of these settings, the model's own first."""
    return sorted({s.method.weights for s in settings}, key=lambda weights: str(weights or ""))


def measured(answerer: Answerer, settings: Settings, setting: Setting) -> dict[str, Any]:
    """The setting's cost as results keep it: `Costs.of`, measured with the others of the call."""
    if answerer.costs is None:
        answerer.costs = Costs(settings, answerer)
    return answerer.costs.of(setting)
