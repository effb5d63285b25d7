"""What an evaluation shows: tables, then remarks; and everything of it as rows for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from icltool.contracts import StageReport
from icltool.contracts.evaluation import Analysis, Guarded, SeedMean, facts_without
from icltool.results.costs import KINDS, cost_of, cost_remarks, cost_table, savings, stands_in
from icltool.results.grid import over_seeds
from icltool.results.tables import breakdown_table, difference_table, result_table
from icltool.store.evaluations import SettingResult

Told: TypeAlias = Callable[[Sequence[SettingResult]], str]

_KINDS = {"image": "image", "group": "near-duplicates", "question": "question", "text": "text"}


@dataclass(frozen=True)
class EvaluationReport(StageReport):
    """A StageReport whose tables are method x shots, differences between methods, and answer types.

    `results` are the settings, one per seed; `analysis` is what results.json holds under that name.
    """

    results: tuple[SettingResult, ...] = field(default=())
    analysis: Analysis = field(default_factory=Analysis)

    def table(self) -> Any:
        from rich.console import Group

        shown = self.over_seeds()
        metric = next(iter(self.results[0].metrics))
        parts = [result_table(shown, self.title)]
        compared = self.analysis.get("differences", [])
        if any(entry["metric"] == metric for entry in compared):
            parts.append(difference_table(compared, metric))
        if len({value for r in self.results for value in r.extra.get("by", {}).get("answer_type", {})}) > 1:
            parts.append(breakdown_table(shown, "answer_type", metric))
        if any(cost_of(result) for result in shown):
            parts.append(cost_table(shown))
        return Group(*parts)

    def over_seeds(self) -> list[SettingResult]:
        """The settings with those that differ in the seed alone as one, their mean."""
        return over_seeds(self.results, self.analysis)

    def rows(self) -> list[dict[str, Any]]:
        """One row per setting with all that was found; a mean over seeds is a row of its own, without a seed. Differences
        stand in the row of the first method of a pair, and are of its mean over seeds where there is one. What stands in
        for demonstrations has "costs of others": how many times as much each setting with demonstrations takes."""
        rows = [table_row(result) for result in self.results]
        means = self.analysis.get("seeds", [])
        rows += [_mean_row(entry) for entry in means]
        averaged = {(entry["method"], entry["shots"]) for entry in means}
        cheaper = savings(self.results)
        away = self.analysis.get("guard", {}).get("kept_away")
        for row in rows:
            key = row["method"], row["shots"]
            if "leaks" in row:
                row["leaks"] = {**row["leaks"], "kept_away": away}
            if key not in averaged or row["seed"] is None:
                row["differences"] = [
                    {
                        "to": entry["b"],
                        **({"shots": entry["shots"]} if "a_shots" in entry else {}),
                        **{k: entry[k] for k in ("metric", "mean", "low", "high", "p")},
                    }
                    for entry in self.analysis.get("differences", [])
                    if (entry["a"], entry.get("a_shots", entry["shots"])) == key
                ]
            if "intervention" in row and cheaper:
                row["costs of others"] = [
                    {k: found[k] for k in ("to", "shots", "seed", *KINDS)}
                    for found in cheaper
                    if found["method"] == row["method"]
                ]
        return rows


def _mean_row(entry: SeedMean) -> dict[str, Any]:
    row = {"method": entry["method"], "shots": entry["shots"], "seed": None, "seeds": entry["seeds"]}
    for name, one in entry["metrics"].items():
        row |= {name: one["mean"], f"{name} 95 % low": one["low"], f"{name} 95 % high": one["high"]}
        row[f"{name} over seeds"] = {kind: one[kind] for kind in ("sd", "min", "max")}
    return row


def table_row(result: SettingResult) -> dict[str, Any]:
    """A setting as a flat row, with what its answers tell behind the figures."""
    row: dict[str, Any] = {
        "method": result.method,
        "shots": result.shots,
        "seed": result.seed,
        "queries": result.queries,
    }
    for name, metric in result.metrics.items():
        row[name] = round(metric.mean, 2)
        row[f"{name} 95 % low"], row[f"{name} 95 % high"] = round(metric.low, 2), round(metric.high, 2)
    row["seconds"] = round(result.seconds, 1)
    extra = result.extra
    known = {
        "copies": extra.get("copies"),
        "leaks": extra.get("leaks"),
        "gains": extra.get("gains", {}).get("metrics"),
        "orders": extra.get("orders"),
        "by": extra.get("by"),
        "seeds alike": extra.get("seeds_alike"),
        "intervention": extra.get("intervention"),
        "cost": extra.get("cost"),
    }
    return row | {name: value for name, value in known.items() if value}


def asked_for(results: Sequence[SettingResult], costs: bool, orders: bool, seeds: Sequence[int]) -> list[SettingResult]:
    """The results without what an earlier call left in the folder and this one did not ask for: `costs`, further `orders`
    of the demonstrations, and other `seeds` that gave the same ones."""
    left_out = {name for name, wanted in (("cost", costs), ("orders", orders)) if not wanted}
    found = []
    for result in results:
        extra = facts_without(result.extra, left_out)
        if "seeds_alike" in extra:
            extra["seeds_alike"] = [seed for seed in extra["seeds_alike"] if seed in seeds]
        found.append(replace(result, extra=extra))
    return found


def remarks(results: Sequence[SettingResult], analysis: Analysis) -> list[str]:
    """The findings in a few lines: copies, gains, orders, leaks, costs. Figures of several seeds are averaged."""
    groups: dict[str, dict[int, list[SettingResult]]] = {}
    for result in results:
        if result.shots or stands_in(result):
            groups.setdefault(result.method, {}).setdefault(result.shots, []).append(result)
    metric = next(iter(results[0].metrics), "")
    lines = [
        *_told("answers copied from a demonstration (of these right), %", groups, _copied),
        *_told(f"queries better / worse than zero-shot by {metric}", groups, lambda found: _gained(found, metric)),
        *(_ordered(found, metric) for by_shots in groups.values() for found in by_shots.values()),
        *(_guarded(results, analysis["guard"]) if "guard" in analysis and any(r.shots for r in results) else ()),
        *(r.extra["intervention"].get("remark", "") for r in results if stands_in(r)),
        *_told("choosing (prompts per query)", groups, _choosing),
        *cost_remarks(results),
    ]
    alike = dict.fromkeys(r.method for r in results if r.extra.get("seeds_alike"))
    if alike:
        lines.append(f"the same demonstrations for every seed, answered once: {', '.join(alike)}")
    return [line for line in lines if line]


def _told(title: str, groups: Mapping[str, Mapping[int, list[SettingResult]]], told: Told) -> list[str]:
    """The title, and a line "  method: 1-shot text, 2-shot text" for each method that has something to tell."""
    lines = []
    for method, by_shots in groups.items():
        texts = [f"{shots}-shot {text}" for shots, found in sorted(by_shots.items()) if (text := told(found))]
        if texts:
            lines.append(f"  {method}: {', '.join(texts)}")
    return [f"{title}:", *lines] if lines else []


def _choosing(found: Sequence[SettingResult]) -> str:
    asked = [r.extra["choosing"]["prompts"] / r.queries for r in found if "choosing" in r.extra]
    return f"{sum(asked) / len(asked):g}" if asked else ""


def _copied(found: Sequence[SettingResult]) -> str:
    copies = [r.extra["copies"] for r in found if r.extra.get("copies")]
    if not copies:
        return ""
    answers = sum(one["answers"] for one in copies)
    right = sum(one["answers"] * (one["right"] or 0.0) for one in copies)
    share = 100 * float(np.mean([one["share"] for one in copies]))
    return f"{share:.1f}" + (f" ({100 * right / answers:.0f})" if answers else "")


def _gained(found: Sequence[SettingResult], metric: str) -> str:
    gains = [g for r in found if (g := r.extra.get("gains", {}).get("metrics", {}).get(metric))]
    if not gains:
        return ""
    return " / ".join(f"{np.mean([one[kind] for one in gains]):.0f}" for kind in ("better", "worse"))


def _ordered(found: Sequence[SettingResult], metric: str) -> str:
    """Mean over seeds of what the orders of each seed's demonstrations tell."""
    summaries = [r.extra["orders"] for r in found if metric in r.extra.get("orders", {}).get("metrics", {})]
    if not summaries:
        return ""
    figures = [one["metrics"][metric] for one in summaries]
    mean, sd = (np.mean([one[kind] for one in figures]) for kind in ("mean", "sd"))
    worst, best = min(one["worst"] for one in figures), max(one["best"] for one in figures)
    changed = 100 * np.mean([one["changed"] for one in summaries])
    return (
        f"{summaries[0]['count']} orders of {found[0].method}, {found[0].shots}-shot: {metric} {mean:.1f}, sd {sd:.1f}, "
        f"{worst:.1f} to {best:.1f}; {changed:.0f} % of the answers change"
    )


def _guarded(results: Sequence[SettingResult], guard: Guarded) -> list[str]:
    away = dict(guard["kept_away"])
    total = away.pop("any")
    kinds = ", ".join(f"{_KINDS[kind]} {count:.1f}" for kind, count in away.items())
    line = f"leak guard: {total:.1f} of {guard['index']} examples kept from a query on average ({kinds})"
    leaks = [r.extra["leaks"] for r in results if r.extra.get("leaks")]
    if not leaks:
        return [line]
    pairs = sum(found["pairs"] for found in leaks)
    chosen = ", ".join(f"{_KINDS[kind]} {sum(found[kind] for found in leaks)}" for kind in _KINDS)
    return [line, f"of {pairs} chosen demonstrations share with their query: {chosen}"]
