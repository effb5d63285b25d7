"""Charts of the page: metric against shots and against cost, and what a search of sequences found. charts.svg draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from icltool.commands.report.page.content import Shown, Spread
from icltool.commands.report.page.table import MINUS, metric_grid, titled
from icltool.results.figures import MOST_BANDS
from icltool.results.intervals import Interval

#: Ends of the axes, in units of the drawing.
_X, _Y = (50, 346), (207, 26)
#: Characters of an axis label.
_LABEL = 48
#: Ticks of an axis, about, and the digits after the point from which on they are powers of ten.
_TICKS, _SMALL = 5, 6
#: From this number of shots on, their axis is logarithmic.
_MANY_SHOTS = 8
#: With more marks than these against cost, not every one has its number of shots beside it.
_MANY_MARKS = 12
#: How far the intervals of lines stand beside one another where they are bars.
_APART = 2.5

Ticks = Sequence[tuple[float, str]]


class Axis:
    """Where values stand: `axis(value)` is in units of the drawing. `ticks` are (value, text)."""

    def __init__(
        self,
        label: str,
        values: Iterable[float],
        ends: tuple[float, float],
        margin: float = 0.05,
        scale: Callable[[float], float] = float,
        ticks: Ticks | None = None,
    ) -> None:
        """An axis that has room for `values`, and a `margin`, a part of what they take, beside them."""
        places = [scale(value) for value in values]
        low, high = min(places), max(places)
        space = margin * (high - low) if high > low else abs(high) / 20 or 0.5
        self.label, self.scale, (self.start, self.end) = _on_one_line(label), scale, ends
        self.low, self.high = low - space, high + space
        self.ticks = ticks or (_decades if scale is math.log10 else _steps)(self.low, self.high)

    def __call__(self, value: float) -> float:
        part = (self.scale(value) - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)


class Mark(NamedTuple):
    """A mark with its interval, and what stands beside it."""

    x: float
    y: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """The marks of a method, in the look of `number`."""

    title: str
    number: int
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Chart:
    """What is drawn: methods, or what a template makes of the axes alone. Intervals are bands where there are few lines, else
    bars, `shift(series)` units beside their marks."""

    x: Axis
    y: Axis
    series: Sequence[Series] = field(default=())

    @property
    def banded(self) -> bool:
        return self._lines <= MOST_BANDS

    def shift(self, series: Series) -> float:
        return round((series.number - (self._lines - 1) / 2) * _APART, 1)

    @property
    def _lines(self) -> int:
        return sum(len(one.marks) > 1 for one in self.series)


def shots_chart(settings: Sequence[Shown], metric: str, gains: bool = False) -> Chart | None:
    """A metric, or its gains over zero-shot, against the number of shots; None where there is nothing."""
    marks = {
        row.method: [
            _mark(shots, cell.result) for shots, cell in sorted(row.cells.items()) if math.isfinite(cell.result.mean)
        ]
        for row in metric_grid(settings, metric, gains).rows
    }
    if not any(marks.values()):
        return None
    series = _series(settings, marks)
    shots = sorted({int(mark.x) for one in series for mark in one.marks})
    scale = _after_one if max(shots) >= _MANY_SHOTS else float
    return Chart(
        Axis("shots", shots, _X, scale=scale, ticks=[(k, str(k)) for k in shots]),
        _upwards(f"{metric}: gain over zero-shot" if gains else metric, series, zero=gains),
        series,
    )


def cost_chart(settings: Sequence[Shown], metric: str, kind: str) -> Chart | None:
    """A metric against one cost per query on a logarithmic axis, a mark for each setting, with its shots, in the order of
    these; None where no setting has both."""
    known = [
        (title, one.cost[kind], one.metrics[metric], one.shots)
        for title, one in sorted(titled(settings), key=lambda pair: pair[1].shots)
        if metric in one.metrics and math.isfinite(one.metrics[metric].mean) and 0 < one.cost.get(kind, 0) < math.inf
    ]
    if not known:
        return None
    highest = {shots: max(figure.mean for _, _, figure, k in known if k == shots) for *_, shots in known}
    marks: dict[str, list[Mark]] = {}
    for title, cost, figure, shots in known:
        labelled = shots and (len(known) <= _MANY_MARKS or figure.mean == highest[shots])
        marks.setdefault(title, []).append(_mark(cost, figure, str(shots) if labelled else ""))
    series = _series(settings, marks)
    x = Axis(f"{kind} per query", [cost for _, cost, _, _ in known], _X, 0.12, math.log10)
    return Chart(x, _upwards(metric, series), series)


def spread_chart(places: Sequence[int], spreads: Sequence[Spread], along: str, what: str) -> Chart | None:
    """The axes for mean and middle 90 % of `what` by number of beam or step; None without any."""
    values = [value for one in spreads for value in (one["mean"], one["q05"], one["q95"]) if value is not None]
    if not values:
        return None
    ticks = [(place, str(place)) for place in places[:: math.ceil(len(places) / 12)]]
    x = Axis(along, [min(places) - 0.6, max(places) + 0.6], _X, 0, ticks=ticks)
    return Chart(x, Axis(what, [0, *values], _Y))


def histogram(edges: Sequence[float], counts: Sequence[int], what: str) -> Chart | None:
    """The axes for how many anchors have a gain within each pair of edges; None without any."""
    return Chart(Axis(what, edges, _X), Axis("anchors", [0, 1.05 * max(counts)], _Y, 0)) if any(counts) else None


def chosen_chart(times: Sequence[Sequence[int]]) -> Chart | None:
    """The axes, both logarithmic, for how many examples were chosen how often; None without any."""
    if not times:
        return None
    chosen, examples = zip(*times, strict=True)
    return Chart(Axis("times chosen", chosen, _X, 0.12, math.log10), Axis("examples", examples, _Y, 0.12, math.log10))


def _series(settings: Sequence[Shown], marks: Mapping[str, Sequence[Mark]]) -> list[Series]:
    """Methods have the same look in all charts of an evaluation."""
    numbered = enumerate(dict.fromkeys(title for title, _ in titled(settings)))
    return [Series(title, number, marks[title]) for number, title in numbered if marks.get(title)]


def _mark(x: float, figure: Interval, note: str = "") -> Mark:
    """A bound that is unknown is at the mean."""
    low, high = (side if math.isfinite(side) else figure.mean for side in (figure.low, figure.high))
    return Mark(x, figure.mean, low, high, note)


def _upwards(label: str, series: Sequence[Series], zero: bool = False) -> Axis:
    values = [value for one in series for mark in one.marks for value in (mark.y, mark.low, mark.high)]
    return Axis(label, [*values, 0] if zero else values, _Y)


def _after_one(value: float) -> float:
    """Linear up to 1, then logarithmic to base 2."""
    return value if value <= 1 else 1 + math.log2(value)


def _steps(low: float, high: float) -> Ticks:
    """Round numbers between the two, about _TICKS."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= 0.999 * rough)
    numbers = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    digits = len(f"{step:.9f}".rstrip("0").partition(".")[2])
    form = f",.{digits}f" if digits < _SMALL else ".3g"
    return [(n, format(n, form).replace("-", MINUS)) for n in numbers]


def _decades(low: float, high: float) -> Ticks:
    """Powers of ten between 10**low and 10**high, twice and five times these where they are few; round numbers where even
    those are not two."""
    factors = (1, 2, 5) if high - low < 2 else (1,)
    every = (factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors)
    ticks = [(value, f"{value:,g}") for value in every if low <= math.log10(value) <= high]
    return ticks if len(ticks) > 1 else _steps(10**low, 10**high)


def _on_one_line(text: str) -> str:
    """Text as it may stand in a drawing: on one line, cut where it is very long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LABEL else line[: _LABEL - 1] + "…"
