"""Results laid out as methods by shots, the layout that all tables and figures share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from icltool.contracts.evaluation import Analysis, SeedMean
from icltool.results.intervals import Interval, interval_of
from icltool.store.evaluations import MetricResult, SettingResult

#: Digits after the decimal point in tables.
DIGITS = 1
#: What stands where a method was not evaluated with that many shots.
EMPTY = "–"
#: Metrics whose lowest figure is the best, by their registered names.
LOWER_IS_BETTER = frozenset({"mean-rank", "gqa-distribution"})


def lower_is_better(metric: str) -> bool:
    """Whether the lowest figure of a metric is the best; its options may stand behind a colon."""
    return metric.partition(":")[0] in LOWER_IS_BETTER


@dataclass(frozen=True)
class Cell:
    """A figure of the table; `best` if every other method does worse in this column. `spread` is the standard deviation over
    seeds of a mean over seeds."""

    result: Interval
    best: bool
    spread: float | None = None

    @property
    def text(self) -> str:
        """ "mean [low, high]", and "±spread" where there is one."""
        r = self.result
        spread = "" if self.spread is None else f" ±{self.spread:.{DIGITS}f}"
        return f"{r.mean:.{DIGITS}f} [{r.low:.{DIGITS}f}, {r.high:.{DIGITS}f}]{spread}"

    @property
    def short(self) -> str:
        """ "mean ±half the width of the interval"."""
        return with_half_width(self.result)


@dataclass(frozen=True)
class GridRow:
    """One method by one metric; `cells` by number of shots."""

    method: str
    metric: str
    cells: Mapping[int, Cell]


@dataclass(frozen=True)
class Grid:
    """Rows grouped by method, in the order in which methods and metrics first appear; `shots` ascending."""

    metrics: tuple[str, ...]
    shots: tuple[int, ...]
    rows: tuple[GridRow, ...]

    @property
    def header(self) -> list[str]:
        """Column titles: method, metric if there are several, one per number of shots."""
        metric = ["metric"] if len(self.metrics) > 1 else []
        return ["method", *metric, *(f"{k}-shot" for k in self.shots)]

    @property
    def has_best(self) -> bool:
        """Whether any figure is the best of its column."""
        return any(cell.best for row in self.rows for cell in row.cells.values())

    @property
    def caption(self) -> str:
        """What the figures are."""
        spread = any(cell.spread is not None for row in self.rows for cell in row.cells.values())
        seeds = " ±standard deviation over seeds" if spread else ""
        bold = ", best of each column in bold" if self.has_best else ""
        return f"{', '.join(self.metrics)}: mean [95 % interval]{seeds}{bold}"

    def labels(self, row: GridRow) -> list[str]:
        """The row's first columns, as in `header`."""
        return [row.method, row.metric] if len(self.metrics) > 1 else [row.method]


class Entry(NamedTuple):
    """A figure to lay out: its row's title, and its column."""

    title: str
    metric: str
    shots: int
    figure: Interval
    spread: float | None = None


def with_half_width(figure: Interval, signed: bool = False) -> str:
    """ "mean ±half the width of the interval"; without the half-width if a bound is unknown, a dash if the mean is."""
    if not math.isfinite(figure.mean):
        return EMPTY
    half = (figure.high - figure.low) / 2
    rounded = round(figure.mean, DIGITS) + 0.0  # no minus before 0
    mean = f"{rounded:{'+' if signed and rounded else ''}.{DIGITS}f}"
    return f"{mean} ±{half:.{DIGITS}f}" if math.isfinite(half) else mean


def result_grid(results: Sequence[SettingResult]) -> Grid:
    """Lays results out. A method evaluated with several seeds gets one row per seed, unless the result is a mean over
    seeds (with "sd", by metric, in its `extra`). Of two results for one setting the later counts."""
    titles = row_titles((result.method, result.seed) for result in results)
    return laid_out(
        Entry(
            titles[result.method, result.seed],
            name,
            result.shots,
            Interval(one.mean, one.low, one.high),
            result.extra.get("sd", {}).get(name),
        )
        for result in results
        for name, one in result.metrics.items()
    )


def laid_out(entries: Iterable[Entry], digits: int = DIGITS) -> Grid:
    """The entries as rows and columns, the best by so many digits after the point; of two in one place the later counts."""
    by_place = {(one.title, one.metric, one.shots): one for one in entries}
    metrics = tuple(dict.fromkeys(metric for _, metric, _ in by_place))
    shots = tuple(sorted({k for _, _, k in by_place}))
    best = _best(by_place, digits)
    rows = []
    for title in dict.fromkeys(title for title, _, _ in by_place):
        for metric in metrics:
            keys = {k: (title, metric, k) for k in shots if (title, metric, k) in by_place}
            if keys:
                cells = {k: Cell(by_place[key].figure, key in best, by_place[key].spread) for k, key in keys.items()}
                rows.append(GridRow(title, metric, cells))
    return Grid(metrics, shots, tuple(rows))


def over_seeds(results: Sequence[SettingResult], analysis: Analysis) -> list[SettingResult]:
    """The results with those of one method and number of shots that `analysis` has a mean over seeds of as one.

    Such a result has "seeds" and "sd" (standard deviation over seeds, by metric) in its `extra`; the rest of it is the
    first seed's, but for figures by type, which are means, too.
    """
    means = {(entry["method"], entry["shots"]): entry for entry in analysis.get("seeds", [])}
    groups: dict[tuple[str, int], list[SettingResult]] = {}
    for result in results:
        groups.setdefault((result.method, result.shots), []).append(result)
    merged = []
    for key, group in groups.items():
        seeds = [result for result in group if key in means and result.seed in means[key]["seeds"]]
        merged += [_mean(seeds, means[key])] if seeds else group
    return merged


def _mean(results: Sequence[SettingResult], entry: SeedMean) -> SettingResult:
    first, metrics = results[0], entry["metrics"]
    tables = [result.extra.get("by", {}) for result in results]
    by = {
        column: {
            value: {
                name: sum(table[column][value][name] for table in tables) / len(tables)
                for name in figures
                if all(name in table.get(column, {}).get(value, {}) for table in tables)
            }
            for value, figures in values.items()
        }
        for column, values in tables[0].items()
    }
    spreads = {name: one["sd"] for name, one in metrics.items()}
    figures = {name: MetricResult(*interval_of(one)) for name, one in metrics.items()}
    return replace(first, metrics=figures, extra={**first.extra, "by": by, "seeds": entry["seeds"], "sd": spreads})


def p_text(p: float) -> str:
    """A p-value as tables have it; a dash where there is none."""
    return EMPTY if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def row_titles(settings: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """The row title of each (method, seed): the seed is in it where the method comes with several."""
    seeds: dict[str, dict[int, None]] = {}
    for method, seed in settings:
        seeds.setdefault(method, {})[seed] = None
    return {
        (method, seed): method if len(of_method) == 1 else f"{method} (seed {seed})"
        for method, of_method in seeds.items()
        for seed in of_method
    }


def _best(entries: Mapping[tuple[str, str, int], Entry], digits: int) -> set[tuple[str, str, int]]:
    """The best of each column as printed: none if two print alike, and none in a column with a single figure."""
    columns: dict[tuple[str, int], list[tuple[float, tuple[str, str, int]]]] = {}
    for key, entry in entries.items():
        if math.isfinite(entry.figure.mean):
            columns.setdefault((entry.metric, entry.shots), []).append((round(entry.figure.mean, digits), key))
    best = set()
    for (metric, _), figures in columns.items():
        top = (min if lower_is_better(metric) else max)(figure for figure, _ in figures)
        leaders = [key for figure, key in figures if figure == top]
        if len(figures) > 1 and len(leaders) == 1:
            best.add(leaders[0])
    return best
