"""What an evaluation prints: tables and notes for people, and everything as rows for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from icltool.contracts import StageReport
from icltool.contracts.evaluation import Analysis, Guarded, Orders, SeedMean, facts_without
from icltool.results.baseline import against_baseline
from icltool.results.costs import KINDS, cost_details, cost_notes, cost_of, cost_sheet, is_intervention, savings
from icltool.results.grid import over_seeds
from icltool.results.published import PublishedFigure
from icltool.results.tables import baseline_sheet, breakdown_sheet, difference_sheet, published_sheet, result_sheets
from icltool.store.evaluations import SettingResult

Settings: TypeAlias = Sequence[SettingResult]

_KINDS = {"image": "image", "group": "near-duplicates", "question": "question", "text": "text"}


@dataclass(frozen=True)
class EvaluationReport(StageReport):
    """A StageReport whose tables are methods by shots and differences from one baseline; under --verbose with the bounds of
    all intervals, all pairs of methods, and answer types.

    `results` are the settings, one per seed; `analysis` is what results.json holds under that name. `published` are figures
    of others for this model and data set; `part` is the number of queries if they are not all.
    """

    results: tuple[SettingResult, ...] = field(default=())
    analysis: Analysis = field(default_factory=Analysis)
    published: tuple[PublishedFigure, ...] = field(default=())
    part: int = 0

    def table(self, verbose: bool = False) -> Any:
        from rich.console import Group
        from rich.text import Text

        results = self.over_seeds()
        metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
        parts: list[Any] = [Text(f"{self.title}\n"), *result_sheets(results, bounds=verbose)]
        for metric in metrics if verbose else metrics[:1]:
            if (baseline := against_baseline(results, self.analysis, metric)) is not None:
                parts.append(baseline_sheet(baseline, metric))
        for metric in dict.fromkeys(figure.metric for figure in self.published):
            parts.append(published_sheet(self.published, metric, self.part, metric in metrics))
        if verbose:
            parts += self._exact(results, metrics)
        if any(cost_of(result) for result in results):
            parts.append(cost_sheet(results))
        return Group(*parts)

    def _exact(self, results: Settings, metrics: Sequence[str]) -> list[Any]:
        """Every pair of methods, and figures by answer type and by the data set's aspects where these have several values."""
        pairs = self.analysis.get("differences", [])
        parts = [difference_sheet(pairs, metric) for metric in metrics if any(p["metric"] == metric for p in pairs)]
        values: dict[str, set[str]] = {}
        for result in results:
            for column, table in result.extra.get("by", {}).items():
                values.setdefault(column, set()).update(table)
        for column in (name for name in values if name != "question_type" and len(values[name]) > 1):
            parts += [breakdown_sheet(results, column, metric) for metric in metrics]
        return parts

    def over_seeds(self) -> list[SettingResult]:
        """The settings with those that differ in the seed alone as one, their mean."""
        return over_seeds(self.results, self.analysis)

    def rows(self) -> list[dict[str, Any]]:
        """One row per setting with all its findings; a mean over seeds is a row of its own, without a seed. Differences
        are in the row of the first method of a pair, and are of its mean over seeds if it has several. An intervention has
        "costs of others": how many times as much each setting with demonstrations takes."""
        rows = [table_row(result) for result in self.results]
        means = self.analysis.get("seeds", [])
        rows += [_mean_row(entry) for entry in means]
        averaged = {(entry["method"], entry["shots"]) for entry in means}
        cheaper = savings(self.results)
        away = self.analysis.get("guard", {}).get("kept_away")
        for row in rows:
            key = row["method"], row["shots"]
            if reported := [asdict(figure) for figure in self.published if figure.shots == row["shots"]]:
                row["published"] = reported
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
                    {k: saving[k] for k in ("to", "shots", "seed", *KINDS)}
                    for saving in cheaper
                    if saving["method"] == row["method"]
                ]
        return rows


def _mean_row(entry: SeedMean) -> dict[str, Any]:
    row = {"method": entry["method"], "shots": entry["shots"], "seed": None, "seeds": entry["seeds"]}
    for name, one in entry["metrics"].items():
        row |= {name: one["mean"], f"{name} 95 % low": one["low"], f"{name} 95 % high": one["high"]}
        row[f"{name} over seeds"] = {kind: one[kind] for kind in ("sd", "min", "max")}
    return row


def table_row(result: SettingResult) -> dict[str, Any]:
    """A setting as a flat row: its figures, then the findings about its answers."""
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
        "unreadable": extra.get("unreadable"),
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


def of_the_call(results: Settings, costs: bool, orders: bool, seeds: Sequence[int]) -> list[SettingResult]:
    """The results without what an earlier call left in the folder and this one did not request: `costs`, further `orders`
    of the demonstrations, and other `seeds` that gave the same ones."""
    left_out = {name for name, requested in (("cost", costs), ("orders", orders)) if not requested}
    shortened = []
    for result in results:
        extra = facts_without(result.extra, left_out)
        if "seeds_alike" in extra:
            extra["seeds_alike"] = [seed for seed in extra["seeds_alike"] if seed in seeds]
        shortened.append(replace(result, extra=extra))
    return shortened


def notes(results: Settings, analysis: Analysis) -> list[str]:
    """What may change how the figures are read: copied answers, the effect of order, leaks, incomparable costs. Figures of
    several seeds are averaged."""
    groups, metric = _by_method(results), next(iter(results[0].metrics), "")
    lines = [
        _unreadable_note(results),
        _copied_note(groups),
        _order_note(groups, metric),
        _leak_note(results),
        *(r.extra["intervention"].get("remark", "") for r in results if is_intervention(r)),
        *cost_notes(results),
    ]
    alike = dict.fromkeys(r.method for r in results if r.extra.get("seeds_alike"))
    if alike:
        lines.append(f"the same demonstrations for every seed, answered once: {', '.join(alike)}")
    return [line for line in lines if line]


def details(results: Settings, analysis: Analysis) -> list[str]:
    """The findings in full, by method and number of shots. Figures of several seeds are averaged."""
    groups, metric = _by_method(results), next(iter(results[0].metrics), "")
    lines = [
        *_listed("answers copied from a demonstration (of these right), %", groups, _copied),
        *_listed(f"queries better / worse than zero-shot by {metric}", groups, lambda seeds: _gained(seeds, metric)),
        *_listed(f"{metric} over orders of the demonstrations", groups, lambda seeds: _ordered(seeds, metric)),
        *(_guarded(results, analysis["guard"]) if "guard" in analysis and any(r.shots for r in results) else ()),
        *_listed("choosing (prompts per query)", groups, _choosing),
        *cost_details(results),
    ]
    return [line for line in lines if line]


def _by_method(results: Settings) -> dict[str, dict[int, list[SettingResult]]]:
    """The seeds of each setting with demonstrations or an intervention."""
    groups: dict[str, dict[int, list[SettingResult]]] = {}
    for result in results:
        if result.shots or is_intervention(result):
            groups.setdefault(result.method, {}).setdefault(result.shots, []).append(result)
    return groups


def _listed(title: str, groups: Mapping[str, Mapping[int, Settings]], describe: Callable[[Settings], str]) -> list[str]:
    """The title, and a line "  method: 1-shot text, 2-shot text" for each method with a text."""
    lines = []
    for method, by_shots in groups.items():
        texts = [f"{shots}-shot {text}" for shots, seeds in sorted(by_shots.items()) if (text := describe(seeds))]
        if texts:
            lines.append(f"  {method}: {', '.join(texts)}")
    return [f"{title}:", *lines] if lines else []


def _choosing(seeds: Settings) -> str:
    prompts = [r.extra["choosing"]["prompts"] / r.queries for r in seeds if "choosing" in r.extra]
    return f"{sum(prompts) / len(prompts):g}" if prompts else ""


def _copies(seeds: Settings) -> float:
    """The share of answers that repeat a demonstration's label, in percent."""
    shares = [r.extra["copies"]["share"] for r in seeds if r.extra.get("copies")]
    return 100 * float(np.mean(shares)) if shares else 0.0


def _unreadable_note(results: Settings) -> str:
    counts = [
        f"{r.method}{f', {r.shots}-shot' if r.shots else ''} {count} of {r.queries}"
        for r in results
        if (count := r.extra.get("unreadable", 0))
    ]
    return f"answers that could not be read, which count as wrong: {'; '.join(counts)}" if counts else ""


def _copied_note(groups: Mapping[str, Mapping[int, Settings]]) -> str:
    most = {method: max(map(_copies, by_shots.values())) for method, by_shots in groups.items()}
    copied = [f"{method} {share:.0f} %" for method, share in most.items() if round(share)]
    if not copied:
        return ""
    up_to = ", up to" if any(len(by_shots) > 1 for by_shots in groups.values()) else ""
    return f"answers copied from a demonstration{up_to}: {', '.join(copied)}"


def _copied(seeds: Settings) -> str:
    copies = [r.extra["copies"] for r in seeds if r.extra.get("copies")]
    if not copies:
        return ""
    answers = sum(one["answers"] for one in copies)
    right = sum(one["answers"] * (one["right"] or 0.0) for one in copies)
    return f"{_copies(seeds):.1f}" + (f" ({100 * right / answers:.0f})" if answers else "")


def _gained(seeds: Settings, metric: str) -> str:
    gains = [g for r in seeds if (g := r.extra.get("gains", {}).get("metrics", {}).get(metric))]
    if not gains:
        return ""
    return " / ".join(f"{np.mean([one[kind] for one in gains]):.0f}" for kind in ("better", "worse"))


def _orders(seeds: Settings, metric: str) -> list[Orders]:
    return [r.extra["orders"] for r in seeds if metric in r.extra.get("orders", {}).get("metrics", {})]


def _range(seeds: Settings, metric: str) -> tuple[float, float]:
    """The figures of the worst and the best order."""
    figures = [one["metrics"][metric] for one in _orders(seeds, metric)]
    return min(one["worst"] for one in figures), max(one["best"] for one in figures)


def _order_note(groups: Mapping[str, Mapping[int, Settings]], metric: str) -> str:
    """Between which figures the orders of one setting's demonstrations lie: of the setting where they differ most."""
    ranges = {
        f"{method}, {shots}-shot": _range(seeds, metric)
        for method, by_shots in groups.items()
        for shots, seeds in by_shots.items()
        if _orders(seeds, metric)
    }
    if not ranges:
        return ""
    title = max(ranges, key=lambda title: ranges[title][1] - ranges[title][0])
    worst, best = ranges[title]
    among = " (largest difference of all settings)" if len(ranges) > 1 else ""
    return f"order of the demonstrations: {metric} {worst:.1f} to {best:.1f} for {title}{among}"


def _ordered(seeds: Settings, metric: str) -> str:
    """Mean over seeds of how figures and answers differ between orders."""
    summaries = _orders(seeds, metric)
    if not summaries:
        return ""
    figures = [one["metrics"][metric] for one in summaries]
    mean, sd = (np.mean([one[kind] for one in figures]) for kind in ("mean", "sd"))
    worst, best = _range(seeds, metric)
    changed = 100 * np.mean([one["changed"] for one in summaries])
    return (
        f"{mean:.1f} (sd {sd:.1f}, {worst:.1f} to {best:.1f}, {summaries[0]['count']} orders, {changed:.0f} % of the answers "
        "change)"
    )


def _shared(results: Settings) -> tuple[int, dict[str, int]]:
    """How many demonstrations were chosen, and how many of them have the image, question or text of their query, by kind."""
    leaks = [r.extra["leaks"] for r in results if r.extra.get("leaks")]
    return sum(one["pairs"] for one in leaks), {kind: sum(one[kind] for one in leaks) for kind in _KINDS}


def _leak_note(results: Settings) -> str:
    pairs, shared = _shared(results)
    kinds = ", ".join(f"{_KINDS[kind]} {count:,}" for kind, count in shared.items() if count)
    return (
        f"of {pairs:,} demonstrations, these match their query: {kinds} (--leak-guard excludes them)" if kinds else ""
    )


def _guarded(results: Settings, guard: Guarded) -> list[str]:
    away = dict(guard["kept_away"])
    total = away.pop("any")
    kinds = ", ".join(f"{_KINDS[kind]} {count:.1f}" for kind, count in away.items())
    line = f"leak guard: {total:.1f} of {guard['index']} examples kept from a query on average ({kinds})"
    pairs, shared = _shared(results)
    if not pairs:
        return [line]
    counts = ", ".join(f"{_KINDS[kind]} {count:,}" for kind, count in shared.items())
    return [line, f"of {pairs:,} demonstrations, these match their query: {counts}"]
