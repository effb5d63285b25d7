"""What each setting costs per query, beside what it achieves."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from icltool.commands.evaluate.inputs import Inputs
from icltool.commands.evaluate.settings import Setting, Settings
from icltool.commands.evaluate.units import Conditions, CostSample, Measured
from icltool.contracts import IntArray, Progress, ScoringRequest, keyed_generator
from icltool.contracts.evaluation import Cost, SettingKey, facts_without
from icltool.engine.query_cost import QueryCost, pooled, query_cost
from icltool.engine.session import Session
from icltool.errors import ConfigError
from icltool.store.evaluations import SettingResult

#: Queries that are answered alone for each setting, the same for all, at most; and the seconds after which no further one
#: is begun, of all settings together.
SAMPLE, BUDGET = 8, 60.0


def should_measure(settings: Settings) -> bool:
    """Whether costs are measured: as --cost says, by default if an intervention is evaluated."""
    requested = settings.inputs.config.cost
    return any(method.intervention is not None for method in settings.methods) if requested is None else requested


def sample(count: int) -> IntArray:
    """int64: positions of the queries that are measured, ascending."""
    return np.sort(keyed_generator(0, "evaluate.cost").permutation(count)[:SAMPLE]).astype(np.int64)


def firsts(settings: Settings) -> list[Setting]:
    """The settings that are measured: of several seeds the first, and none that asks the model what to show."""
    return [group[0] for group in settings.groups if not group[0].asks]


def set_apart(results: dict[SettingKey, SettingResult], settings: Settings) -> None:
    """Takes away the costs of the call's settings, unless all of them were measured in one call: what else the machine
    did then is in the seconds of all alike. Does nothing where no costs are to be measured."""
    if not should_measure(settings):
        return
    keys = [
        s.key for s in firsts(settings) if s.key in results and results[s.key].extra.get("digest", s.digest) == s.digest
    ]
    calls = {results[key].extra.get("cost", {}).get("call") for key in keys}
    if len(keys) == len(firsts(settings)) and len(calls) == 1 and None not in calls:
        return
    for key in keys:
        results[key] = replace(results[key], extra=facts_without(results[key].extra, ("cost",)))


class Answerer(Protocol):
    """What holds the model: `weights` are the fine-tuned ones that are loaded, None for its own."""

    inputs: Inputs
    progress: Progress
    weights: Path | None

    def use(self, weights: Path | None) -> None:
        """Has the model answer with these weights from now on."""
        ...

    def session(self) -> Session:
        """The session of the model."""
        ...

    def applying(self, under: Conditions) -> AbstractContextManager[None]:
        """Within it the model answers under the intervention of these conditions, if there is one."""
        ...


def cost_sample(settings: Settings) -> CostSample:
    """What is measured: the queries of the sample, each by every setting."""
    places = sample(len(settings.inputs.query_rows))
    measured = [
        Measured(setting.key, Conditions.of(setting.method), settings.demonstrations(setting)[places])
        for setting in firsts(settings)
    ]
    return CostSample(settings.inputs.query_rows[places], tuple(measured))


def measured_together(
    answerer: Answerer, sample: CostSample
) -> tuple[dict[SettingKey, Cost], dict[SettingKey, ConfigError]]:
    """(costs by setting: {"queries", "device", "prompt_tokens", "flops", "seconds", "call"}, where "uncounted" names what FLOPs
    are without, and "call" is when it was measured, the same for all; why others could not be measured: a prompt alone does
    not fit in memory).

    The first query is answered by every setting of the same weights, then the second, and so on, so that other work on the
    machine slows all of them alike. The first weights are measured until their share of BUDGET is spent, on one query at
    least; the others on the same queries.
    """
    inputs, settings = answerer.inputs, sample.settings
    queries = inputs.queries.rows(sample.query_rows)
    counts = inputs.config.quantization is None  # kernels for packed weights are counted by nobody
    parts: dict[SettingKey, list[QueryCost]] = {one.key: [] for one in settings}
    faults: dict[SettingKey, ConfigError] = {}
    weights_first = sorted({one.under.weights for one in settings}, key=lambda weights: str(weights or ""))
    order = sorted(weights_first, key=lambda weights: weights != answerer.weights)  # what is loaded first
    several = len(queries)
    with answerer.progress.task("cost per query", several * len(settings), "answers") as ticker:
        for weights in order:
            answerer.use(weights)
            of_weights = [one for one in settings if one.under.weights == weights]
            started = time.monotonic()
            for position in range(several):
                for one in of_weights:
                    if one.key not in faults:
                        demonstrations = tuple(inputs.index.rows(one.chosen[position]))
                        request = ScoringRequest(queries[position], demonstrations)
                        try:
                            with answerer.applying(one.under):
                                cost = query_cost(answerer.session(), [request], inputs.task.ranked, counts)
                            parts[one.key].append(cost)
                        except ConfigError as error:
                            faults[one.key] = error
                    ticker.advance(1)
                if weights == order[0] and time.monotonic() - started >= BUDGET / len(order):
                    several = position + 1
                    break
            ticker.advance((len(queries) - several) * len(of_weights))
    call = datetime.now(timezone.utc).isoformat()
    uncounted = {"uncounted": "attention"} if inputs.config.attention == "flash_attention_2" and counts else {}
    pooled_costs = {
        key: {**asdict(pooled(costs)), "call": call, **uncounted} for key, costs in parts.items() if key not in faults
    }
    return cast("dict[SettingKey, Cost]", pooled_costs), faults
