"""From timed sides to the figures that are reported."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tests.benchmarks.engine import sides
from tests.benchmarks.engine.data import Run
from tests.benchmarks.engine.flops import ModelFlops, model_flops
from tests.benchmarks.engine.measure import matrix_rate
from tests.benchmarks.engine.naive import Ids
from tests.benchmarks.engine.sides import Setting, Side
from tests.benchmarks.engine.tree import PromptUnits, TreeSize, forest_size, prompt_units, tree_size


@dataclass(frozen=True)
class Differences:
    """Between the values P(y | S, x) of the naive way and of the engine, over the `compared` sequences that both scored.

    `relative` is by the naive value; for small differences it is that of the mean log-probabilities. `score` is the
    largest difference of a score, which is a sequence's value minus that of its parent. `same_beams`: the surviving beams
    are the same, in the same order.
    """

    compared: int
    value: float
    relative: float
    score: float
    same_beams: bool


@dataclass(frozen=True)
class Comparison:
    """All figures of one construct order.

    Of the prompts of all anchors: `scored` tokens, the `bound` (nodes of one prompt tree for each anchor), `bound_joint`
    (of one tree for all), and what the engine `computed` and how many of its tokens were `padded` (None where it keeps no
    such count). `rate` is what the machine does in matrix products, in operations per second; `useful` the share of it that
    goes into operations that the bound needs, by side; `own` the share that the naive way's own operations take.
    """

    setting: Setting
    naive: Side
    cached: Side | None
    engine: Side
    differences: Differences
    images: int
    scored: int
    bound: int
    bound_joint: int
    rate: float
    useful: dict[str, float]
    own: float

    @property
    def speedup(self) -> float:
        """Prompts per second of the engine over those of the naive way."""
        return self.engine.rate / self.naive.rate

    @property
    def cpu_speedup(self) -> float:
        """The same in the process's own time: what other processes take does not count."""
        return self.engine.prompts / self.engine.cpu_seconds * self.naive.cpu_seconds / self.naive.prompts

    @property
    def computed(self) -> int | None:
        return self.engine.counters.get("computed")

    @property
    def padded(self) -> int | None:
        return self.engine.counters.get("padded")


def compare(
    adapter: Any,
    run: Run,
    setting: Setting,
    naive_anchors: int,
    rounds: int = 1,
    with_cached: bool = True,
) -> Comparison:
    """Engine and naive way in turn, `rounds` times; the naive way on the first anchors only. Times are medians.

    The matrix rate is measured before and after them; the higher one counts.
    """
    sample = run.first(naive_anchors)
    sides.warm_up(adapter, run, setting)
    turns: dict[str, list[Side]] = {"engine": [], "naive": [], "cached": []}
    rates = [_machine_rate(adapter)]
    for _ in range(rounds):
        turns["engine"].append(sides.engine(adapter, run, setting))
        turns["naive"].append(sides.naive(adapter, sample, setting))
        if with_cached:
            turns["cached"].append(sides.cached(adapter, sample, setting, run))
        rates.append(_machine_rate(adapter))
    medians = {name: _median(taken) for name, taken in turns.items() if taken}
    forest = _units(adapter, run, medians["engine"].values)
    whole, part = forest_size(forest), forest_size(_units(adapter, sample, medians["naive"].values))
    model, rate = model_flops(adapter.model), max(rates)
    useful, own = _utilisation(model, medians, whole, part, run, len(sample.anchors), rate)
    return Comparison(
        setting=setting,
        naive=medians["naive"],
        cached=medians.get("cached"),
        engine=medians["engine"],
        differences=differences(medians["naive"], medians["engine"], setting.order),
        images=len(run.images),
        scored=whole.scored,
        bound=whole.tokens,
        bound_joint=tree_size([units for tree in forest for units in tree]).tokens,
        rate=rate,
        useful=useful,
        own=own,
    )


def _machine_rate(adapter: Any) -> float:
    config = adapter.model.config
    return matrix_rate(adapter.device, adapter.dtype, config.hidden_size, config.intermediate_size)


def differences(naive: Side, engine: Side, order: str) -> Differences:
    """Raises KeyError where an anchor was searched by the naive way only."""
    value = relative = score = 0.0
    compared = 0
    for anchor, known in naive.values.items():
        other = engine.values[anchor]
        for ids in known.keys() & other.keys():
            compared += 1
            value = max(value, abs(known[ids] - other[ids]))
            relative = max(relative, abs(known[ids] - other[ids]) / known[ids])
            parent = ids[:-1] if order == "left" else ids[1:]
            if ids and parent in other and parent in known:
                score = max(score, abs((known[ids] - known[parent]) - (other[ids] - other[parent])))
    same = all(engine.beams[anchor] == beams for anchor, beams in naive.beams.items())
    return Differences(compared, value, relative, score, same)


def _median(taken: Sequence[Side]) -> Side:
    """The first of these runs, with the median of their times and the largest of their peaks."""
    side = taken[0]
    side.seconds = statistics.median(s.seconds for s in taken)
    side.cpu_seconds = statistics.median(s.cpu_seconds for s in taken)
    side.peak_bytes = max(s.peak_bytes for s in taken)
    return side


def _units(adapter: Any, run: Run, values: dict[int, dict[Ids, float]]) -> list[list[PromptUnits]]:
    """The tokens of all prompts that were scored, by anchor."""
    trees = []
    for query, pool in run.anchors:
        known = {e.id: e for e in pool}
        prompts = [adapter.prompt("caption", [known[i] for i in ids], query) for ids in values[query.id]]
        trees.append([prompt_units(adapter.tokenizer, p) for p in prompts])
    return trees


def _utilisation(
    model: ModelFlops, by_name: dict[str, Side], whole: TreeSize, part: TreeSize, run: Run, anchors: int, rate: float
) -> tuple[dict[str, float], float]:
    """Shares of the rate: of useful operations by side, of the naive way's own. `part` is the naive anchors' tree; of the
    run's images it needs its part."""
    images = len(run.images)
    needed = model.least(part, round(images * anchors / len(run.anchors)))
    useful = {name: needed / side.seconds / rate for name, side in by_name.items() if name != "engine"}
    useful["engine"] = model.least(whole, images) / by_name["engine"].seconds / rate
    return useful, model.naive(part, by_name["naive"].encoded) / by_name["naive"].seconds / rate


def as_json(comparison: Comparison, adapter: Any) -> dict[str, Any]:
    """What the JSON line holds of one construct order."""
    taken = {"naive": comparison.naive, "cached": comparison.cached, "engine": comparison.engine}
    return {
        **asdict(comparison.setting),
        "model": adapter.name,
        "device": device_name(adapter.device),
        "dtype": str(adapter.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "speedup": comparison.speedup,
        "speedup_cpu_time": comparison.cpu_speedup,
        "tokens": {
            "scored": comparison.scored,
            "bound": comparison.bound,
            "bound_joint": comparison.bound_joint,
            "computed": comparison.computed,
            "padded": comparison.padded,
        },
        "images": comparison.images,
        "matrix_flops_per_second": comparison.rate,
        "utilisation": {**comparison.useful, "naive_own": comparison.own},
        "differences": asdict(comparison.differences),
        "sides": {
            name: {
                "prompts": side.prompts,
                "seconds": side.seconds,
                "cpu_seconds": side.cpu_seconds,
                "prompts_per_second": side.rate,
                "encoded": side.encoded,
                "peak_bytes": side.peak_bytes,
            }
            for name, side in taken.items()
            if side is not None
        },
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
