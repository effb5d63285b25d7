"""The differences of all methods from one of them, the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from icltool.contracts.evaluation import Analysis
from icltool.results.intervals import Interval, interval_of
from icltool.store.evaluations import SettingResult

RANDOM, ZERO_SHOT = "random", "zero-shot"


class Baseline(NamedTuple):
    """What differs from `method`: intervals of the paired differences by method and number of shots, those of the baseline
    if the method has no demonstrations, as those `without` have none."""

    method: str
    differences: Mapping[str, Mapping[int, Interval]]
    without: tuple[str, ...] = ()


def against_baseline(results: Sequence[SettingResult], analysis: Analysis, metric: str) -> Baseline | None:
    """The differences from random, else from zero-shot, else from the first method, whichever is compared with the most
    methods; None if nothing is compared. Methods are in the order of `results`, means over seeds as from `over_seeds`."""
    methods = list(dict.fromkeys(result.method for result in results))
    baselines = [name for name in dict.fromkeys((RANDOM, ZERO_SHOT, *methods[:1])) if name in methods]
    candidates = [Baseline(name, _differences(name, methods, results, analysis, metric)) for name in baselines]
    best = max(candidates, key=lambda one: len(one.differences), default=None)
    if best is None or not best.differences:
        return None
    with_shots = {result.method for result in results if result.shots}
    without = (name for name, row in best.differences.items() if name not in with_shots and any(row))
    return best._replace(without=tuple(without))


def _differences(
    baseline: str, methods: Iterable[str], results: Sequence[SettingResult], analysis: Analysis, metric: str
) -> dict[str, dict[int, Interval]]:
    rows: dict[str, dict[int, Interval]] = {method: {} for method in methods}
    for entry in analysis.get("differences", []):
        a, b, shots = entry["a"], entry["b"], entry["shots"]
        difference = interval_of({"mean": entry["mean"], "low": entry["low"], "high": entry["high"]})
        if entry["metric"] == metric and b == baseline:
            rows.setdefault(a, {})[shots] = difference
        elif entry["metric"] == metric and a == baseline:
            rows.setdefault(b, {})[shots] = _negative(difference)
    for result in results:
        gain = result.extra.get("gains", {}).get("metrics", {}).get(metric)
        if gain is None or "seeds" in result.extra:  # gains are of one seed
            continue
        if baseline == ZERO_SHOT:
            rows[result.method][result.shots] = interval_of(gain)
        elif result.method == baseline and ZERO_SHOT in rows:
            rows[ZERO_SHOT][result.shots] = _negative(interval_of(gain))
    return {method: row for method, row in rows.items() if row}


def _negative(figure: Interval) -> Interval:
    return Interval(-figure.mean, -figure.high, -figure.low)
