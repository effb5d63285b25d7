"""Results laid out as methods by shots, the layout that all tables and figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icltool.store.evaluations import MetricResult, SettingResult

#: Digits after the decimal point in tables.
DIGITS = 1
#: What stands where a method was not evaluated with that many shots.
EMPTY = "–"


@dataclass(frozen=True)
class Cell:
    """A figure of the table; `best` where no method has more in this column."""

    result: MetricResult
    best: bool

    @property
    def text(self) -> str:
        """ "mean [low, high]"."""
        r = self.result
        return f"{r.mean:.{DIGITS}f} [{r.low:.{DIGITS}f}, {r.high:.{DIGITS}f}]"


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
        """Column titles: method, metric where there are several, one per number of shots."""
        metric = ["metric"] if len(self.metrics) > 1 else []
        return ["method", *metric, *(f"{k}-shot" for k in self.shots)]

    @property
    def caption(self) -> str:
        """What the figures are."""
        return f"{', '.join(self.metrics)}: mean [95 % interval], best of each column in bold"

    def labels(self, row: GridRow) -> list[str]:
        """The row's first columns, as in `header`."""
        return [row.method, row.metric] if len(self.metrics) > 1 else [row.method]


def result_grid(results: Sequence[SettingResult]) -> Grid:
    """Lays results out. A method evaluated with several seeds gets one row per seed. Of two results for one setting the
    later counts."""
    labels = _labels(results)
    metrics = tuple(dict.fromkeys(name for result in results for name in result.metrics))
    shots = tuple(sorted({result.shots for result in results}))
    found: dict[tuple[str, str, int], MetricResult] = {}
    for result in results:
        for name, value in result.metrics.items():
            found[labels[result.method, result.seed], name, result.shots] = value
    best = _best(found)
    rows = []
    for label in dict.fromkeys(labels.values()):
        for metric in metrics:
            cells = {k: found[label, metric, k] for k in shots if (label, metric, k) in found}
            if cells:
                rows.append(GridRow(label, metric, {k: Cell(v, (label, metric, k) in best) for k, v in cells.items()}))
    return Grid(metrics, shots, tuple(rows))


def _labels(results: Sequence[SettingResult]) -> dict[tuple[str, int], str]:
    """The row title of each (method, seed)."""
    seeds: dict[str, dict[int, None]] = {}
    for result in results:
        seeds.setdefault(result.method, {})[result.seed] = None
    return {
        (method, seed): method if len(found) == 1 else f"{method} (seed {seed})"
        for method, found in seeds.items()
        for seed in found
    }


def _best(found: Mapping[tuple[str, str, int], MetricResult]) -> set[tuple[str, str, int]]:
    """The highest of each column as printed, ties included; none in a column with a single figure."""
    columns: dict[tuple[str, int], list[tuple[float, tuple[str, str, int]]]] = {}
    for key, value in found.items():
        if value.mean == value.mean:  # not NaN
            columns.setdefault((key[1], key[2]), []).append((round(value.mean, DIGITS), key))
    best = set()
    for figures in columns.values():
        top = max(figure for figure, _ in figures)
        if len(figures) > 1:
            best |= {key for figure, key in figures if figure == top}
    return best
