"""Tables on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from icltool.results.baseline import Baseline
from icltool.results.grid import DIGITS, EMPTY, Cell, p_text, result_grid, with_half_width
from icltool.results.intervals import Interval, interval_of
from icltool.results.published import PublishedFigure, figure_text
from icltool.results.sheet import Figure, Row, Sheet
from icltool.store.evaluations import SettingResult

_NOTHING = Figure(EMPTY)


def result_sheets(results: Sequence[SettingResult], bounds: bool = False) -> list[Sheet]:
    """Methods by shots, one sheet for each metric: means with half of their 95 % intervals, or with the `bounds`; the best
    of each column bold."""
    grid = result_grid(results)
    sheets = []
    for metric in grid.metrics:
        rows = [row for row in grid.rows if row.metric == metric]
        shots = [k for k in grid.shots if any(k in row.cells for row in rows)]
        figures = [Row(row.method, [_cell(row.cells.get(k), bounds) for k in shots]) for row in rows]
        caption = _caption([cell for row in rows for cell in row.cells.values()], bounds)
        sheets.append(Sheet(metric, [f"{k}-shot" for k in shots], figures, caption=caption))
    return sheets


def _cell(cell: Cell | None, bounds: bool) -> Figure:
    return _NOTHING if cell is None else Figure(cell.text if bounds else cell.short, cell.best)


def _caption(cells: Sequence[Cell], bounds: bool) -> str:
    what = "mean [95 % interval]" if bounds else "mean ±half of the 95 % interval"
    seeds = " ±standard deviation over seeds" if bounds and any(cell.spread is not None for cell in cells) else ""
    return f"{what}{seeds}{'; bold: best of its column' if any(cell.best for cell in cells) else ''}"


def baseline_sheet(baseline: Baseline, metric: str) -> Sheet:
    """How the methods differ from the baseline in one metric, by shots: the mean of the paired difference with half of its
    95 % interval, and a mark if the interval excludes 0."""
    shots = sorted({k for row in baseline.differences.values() for k in row})
    rows = [
        Row(method, [_marked(row[k]) if k in row else Figure(f"{EMPTY} ") for k in shots])
        for method, row in baseline.differences.items()
    ]
    without = ""
    if baseline.without:
        without = f"\n{', '.join(baseline.without)}: without demonstrations, against {baseline.method} at each number of shots"
    return Sheet(
        metric,
        [f"{k}-shot " for k in shots],
        rows,
        title=f"Difference from {baseline.method} on the same queries",
        caption="mean ±half of the 95 % interval (paired bootstrap); * the interval excludes 0" + without,
    )


def _marked(difference: Interval) -> Figure:
    return Figure(with_half_width(difference, signed=True) + ("*" if excludes_zero(difference) else " "))


def excludes_zero(difference: Interval) -> bool:
    return difference.low > 0 or difference.high < 0


def published_sheet(figures: Sequence[PublishedFigure], metric: str, queries: int = 0, computed: bool = True) -> Sheet:
    """Figures that others reported by one metric, methods of each source by shots; `queries` is the number of ours if they
    are a part of the split, and `computed` whether ours are by this metric, too."""
    own = [figure for figure in figures if figure.metric == metric]
    sources = list(dict.fromkeys((figure.source, figure.protocol) for figure in own))
    shots = sorted({figure.shots for figure in own})
    rows: dict[tuple[int, str], dict[int, Figure]] = {}
    for figure in own:
        source = sources.index((figure.source, figure.protocol)) + 1
        rows.setdefault((source, figure.method), {})[figure.shots] = Figure(figure_text(figure))
    notes = [
        f"[{number}] {source}{f'; protocol differs: {protocol}' if protocol else ''}"
        for number, (source, protocol) in enumerate(sources, 1)
    ]
    if queries:
        notes.append(f"of the whole split; the figures above are of {queries:,} queries")
    return Sheet(
        metric,
        [f"{k}-shot" for k in shots],
        [Row(f"{method} [{source}]", [by.get(k, _NOTHING) for k in shots]) for (source, method), by in rows.items()],
        title="Reported by others" if computed else "Reported by others, by a metric that is not computed here",
        caption="\n".join(notes),
    )


def difference_sheet(differences: Sequence[Mapping[str, Any]], metric: str) -> Sheet:
    """Pairs of methods by shots for one metric: difference, 95 % interval, and the two-sided share of draws, bold if the
    interval excludes 0. Entries have shots, a, b, metric, mean, low, high and p; `shots` are those of b if a has none."""
    entries = [entry for entry in differences if entry["metric"] == metric]
    shots = sorted({entry["shots"] for entry in entries})
    pairs: dict[str, dict[int, Figure]] = {}
    for entry in entries:
        difference = interval_of(entry)
        mean, low, high = (f"{value:+.{DIGITS}f}" for value in difference)
        figure = Figure(f"{mean} [{low}, {high}] p {p_text(entry['p'])}", excludes_zero(difference))
        pairs.setdefault(f"{entry['a']} - {entry['b']}", {})[entry["shots"]] = figure
    return Sheet(
        metric,
        [f"{k}-shot" for k in shots],
        [Row(name, [figures.get(k, _NOTHING) for k in shots]) for name, figures in pairs.items()],
        title="Differences between methods on the same queries",
        caption="mean [95 % interval], p by paired bootstrap; bold: the interval excludes 0",
    )


def breakdown_sheet(results: Sequence[SettingResult], column: str, metric: str) -> Sheet:
    """One metric's figure over the queries of each type, a row per setting, from `extra["by"][column]`."""
    tables = [(r, table) for r in results if (table := r.extra.get("by", {}).get(column))]
    counts = {value: int(figures["queries"]) for _, table in tables for value, figures in sorted(table.items())}
    values = sorted(counts, key=_place)
    rows = [
        Row(
            f"{r.method} {r.shots}-shot" if r.shots else r.method,
            [_figure(table.get(value, {}).get(metric)) for value in values],
        )
        for r, table in tables
    ]
    title = f"By {column.replace('_', ' ')} (number of queries)"
    return Sheet(metric, [f"{value} ({counts[value]})" for value in values], rows, title)


def _place(value: str) -> tuple[bool, int, str]:
    """Sorts numbers by size, before other values."""
    return (False, int(value), value) if value.isdecimal() else (True, 0, value)


def _figure(value: float | None) -> Figure:
    return _NOTHING if value is None else Figure(f"{value:.{DIGITS}f}")
