"""What stands in the tables of the page; tables.html draws them, readable without a script, and by a screen reader."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from icltool.commands.report.page.content import Comparison, Page, SeedMeans, Shown, Spread, TypeFigures
from icltool.results.grid import EMPTY, Entry, Grid, laid_out, row_titles
from icltool.results.intervals import Interval, interval_of

MINUS = "−"
#: Below this a p of a paired test counts.
_LEVEL = 0.05
#: Digits after the point at most.
_MOST = 12


def number(value: float | None, digits: int, signed: bool = False) -> str:
    """A figure with so many digits after the point and a real minus sign; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return EMPTY
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not any(c in "123456789" for c in text):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def percent(share: float | None) -> str:
    """A share in percent; a dash where there is none."""
    return EMPTY if share is None else f"{100 * share:.1f} %"


def significant(value: float | None, digits: int = 3) -> str:
    """A figure with so many digits that count; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return EMPTY
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def bounds(interval: Interval, digits: int, signed: bool = False) -> str:
    """The bounds of an interval; "" where they are unknown."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return ""
    return f"[{number(interval.low, digits, signed)}, {number(interval.high, digits, signed)}]"


def digits_of(page: Page, metric: str) -> int:
    """Digits after the point in which figures of this metric differ: 1 as in all tables of results, more for small ones."""
    if page.kind == "evaluations":
        return 1
    return digits_by_size((i.mean for s in page.settings if (i := s.metrics.get(metric))), 1000, 100)


def digits_by_size(values: Iterable[float | None], one: float, two: float) -> int:
    """Digits after the point: 1 where the largest value is `one` or more, 2 from `two` on, 3 from 1 on, else `digits_for`."""
    top = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=1.0)
    return 1 if top >= one else 2 if top >= two else 3 if top >= 1 else digits_for([top], 4)


def digits_for(values: Iterable[float | None], least: int) -> int:
    """Digits after the point, `least` or more, with which the largest value has two that count."""
    top = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    return least if top == 0 else min(max(least, 1 - math.floor(math.log10(top))), _MOST)


def gain_digits(page: Page, metric: str, gains: Iterable[float | None]) -> int:
    """As `digits_of`, of gains, which may be far smaller than what they are gains of."""
    least = digits_of(page, metric)
    return least if page.kind == "evaluations" else digits_for(gains, least)


def digits_in(page: Page, settings: Sequence[Shown], metric: str, gains: bool) -> int:
    """Digits of a table of one metric, with `gains` of those over zero-shot."""
    if gains:
        return gain_digits(page, metric, (one.gains[metric].mean for one in settings if metric in one.gains))
    return digits_of(page, metric)


def spread_digits(spreads: Iterable[Spread]) -> int:
    """Digits of a table of how gains are distributed."""
    return digits_by_size((value for one in spreads for value in (one["q05"], one["q95"])), 100, 10)


def titled(settings: Sequence[Shown]) -> list[tuple[str, Shown]]:
    """Each setting with its row title: its method, with the seed where the method was evaluated with several."""
    titles = row_titles((s.method, s.seed) for s in settings)
    return [(titles[s.method, s.seed], s) for s in settings]


def cost_kinds(settings: Sequence[Shown]) -> list[str]:
    """What costs were measured of any of the settings."""
    return list(dict.fromkeys(kind for one in settings for kind in one.cost))


def metrics_of(page: Page, settings: Sequence[Shown]) -> list[str]:
    """The page's metrics that any of the settings has."""
    return [metric for metric in page.metrics if any(metric in one.metrics for one in settings)]


def metric_grid(settings: Sequence[Shown], metric: str, gains: bool = False, digits: int = 1) -> Grid:
    """Methods by shots in one metric, with `gains` over zero-shot, printed with so many digits."""
    figures_by_title = [(title, one.shots, one.gains if gains else one.metrics) for title, one in titled(settings)]
    return laid_out(
        (
            Entry(title, metric, shots, figures[metric])
            for title, shots, figures in figures_by_title
            if metric in figures
        ),
        digits,
    )


def apart(one: Comparison) -> bool:
    """Whether the interval of a difference leaves out 0."""
    return one.difference.low > 0 or one.difference.high < 0


def differs(one: Comparison) -> bool:
    """Whether a difference is shown: the interval leaves out 0, and p, corrected for the number of tests, is below 5 %
    where it is known."""
    return apart(one) and not one.holm >= _LEVEL


def better(page: Page, one: Comparison) -> str:
    """Which of the two is better, where the interval leaves out 0."""
    first = (one.difference.low > 0) != (one.metric in page.lower_is_better)
    return one.first if first else one.second


def over_seeds(settings: Sequence[Shown], means_by_seed: Sequence[SeedMeans]) -> list[Shown]:
    """The settings with those of one method and number of shots that `found` has a mean over seeds of as one; its cost is
    that of the first seed with one, and there are no gains."""
    means = {(entry["method"], entry["shots"]): entry for entry in means_by_seed}
    done: set[tuple[str, int]] = set()
    merged = []
    for one in settings:
        key = one.method, one.shots
        if key not in means or one.seed not in means[key]["seeds"]:
            merged.append(one)
        elif key not in done:
            done.add(key)
            alike = [s for s in settings if (s.method, s.shots) == key]
            figures = {name: interval_of(entry) for name, entry in means[key]["metrics"].items()}
            first = min(means[key]["seeds"])
            cost = next((s.cost for s in alike if s.cost), {})
            merged.append(replace(one, seed=first, metrics={**one.metrics, **figures}, gains={}, cost=cost))
    return merged


@dataclass(frozen=True)
class TypeGrid:
    """Figures of one metric by the values of `column`: `counts` of queries by value, rows of figures by setting's title."""

    column: str
    metric: str
    counts: Mapping[str, int | None]
    rows: Sequence[tuple[str, Sequence[float | None]]]

    @property
    def header(self) -> list[str]:
        return ["setting", *(f"{value} ({queries})" for value, queries in self.counts.items())]


def type_grids(page: Page, settings: Sequence[Shown]) -> list[TypeGrid]:
    """Figures by type of query, one grid per column and metric, of those of the page's settings that are given."""
    titles = {id(one): f"{title} {one.shots}-shot" if one.shots else title for title, one in titled(settings)}
    names = {place: titles[id(one)] for place, one in enumerate(page.settings) if id(one) in titles}
    chosen = [entry for entry in page.extra.get("types", []) if entry["setting"] in names]
    return [
        _type_grid([entry for entry in chosen if entry["column"] == column], names, metric)
        for column in dict.fromkeys(entry["column"] for entry in chosen)
        for metric in page.metrics
        if any(metric in entry["metrics"] for entry in chosen if entry["column"] == column)
    ]


def _type_grid(entries: Sequence[TypeFigures], names: Mapping[int, str], metric: str) -> TypeGrid:
    """Of entries that all have the same column."""
    counts = {entry["value"]: entry["queries"] for entry in entries}
    figures = {(entry["setting"], entry["value"]): entry["metrics"].get(metric) for entry in entries}
    settings = dict.fromkeys(entry["setting"] for entry in entries)
    rows = [(names[place], [figures.get((place, value)) for value in counts]) for place in names if place in settings]
    return TypeGrid(entries[0]["column"], metric, counts, rows)
