"""Charts of the page: metric against shots and against cost, and what a search of sequences found, as SVG with a legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from icltool.commands.report.page.content import Page, Shown
from icltool.commands.report.page.table import labels, words
from icltool.commands.report.page.vector import INK, MUTED, SERIES, drawing, figure_svg, label, series_colour, swatch
from icltool.results.figures import MARKERS, STYLES, draw_spread
from icltool.results.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches; an inch is 72 units of the SVG. Small, so that text can be read where the page is narrow.
_SIZE = (5.0, 3.4)
_DASHES = {"-": "", "--": "7 3", ":": "2 3", "-.": "7 3 2 3"}
#: From this number of shots on, their axis is logarithmic.
_MANY_SHOTS = 8
#: With more marks than these against cost, not every one has its number of shots beside it.
_MANY_MARKS = 12


def shots_plot(page: Page, settings: Sequence[Shown], metric: str, name: str, gains: bool = False) -> str:
    """A metric against the number of shots, a line per method with a band for its 95 % interval; "" where there is nothing.

    A method with a single number of shots is a point with an error bar; without demonstrations, a dotted line shows its
    level. With `gains` the figures are those over zero-shot.
    """
    found = _series(settings, metric, gains)
    if not any(math.isfinite(i.mean) for row in found.values() for i in row.values()):
        return ""
    shots = sorted({k for row in found.values() for k in row})
    numbers = _numbers(settings)
    what = f"{metric}: gain over zero-shot" if gains else metric
    with drawing():
        figure, axes = _figure()
        lines = sum(len(row) > 1 for row in found.values())
        for title, row in found.items():
            _draw_shots(axes, row, numbers[title], lines)
        if max(shots) >= _MANY_SHOTS:
            axes.set_xscale("symlog", base=2, linthresh=1)
        axes.set_xticks(shots, [str(k) for k in shots])
        axes.set_xticks([], minor=True)
        if gains:
            axes.axhline(0, color=MUTED, linewidth=1, linestyle=":")
        axes.set_xlabel("shots")
        axes.set_ylabel(label(what))
        told = f"{what} of {len(found)} methods with {', '.join(map(str, shots))} shots. The figures are in the table."
        drawn = figure_svg(figure, name, f"{what} against shots", told)
    rows = [(title, numbers[title], len(row) > 1) for title, row in found.items()]
    return _framed(drawn, f"{words(what)} against shots; bands and bars are 95 % intervals", _legend(rows))


def cost_plot(page: Page, settings: Sequence[Shown], metric: str, kind: str, name: str) -> str:
    """A metric against one cost per query on a logarithmic axis, a mark with its 95 % interval for each setting, joined in
    the order of shots, which stand beside the marks; "" where no setting has both."""
    titles = labels(settings)
    found: dict[str, list[tuple[float, Interval, int]]] = {}
    for title, one in sorted(zip(titles, settings, strict=True), key=lambda pair: pair[1].shots):
        cost, figure = one.cost.get(kind), one.metrics.get(metric)
        if cost and cost > 0 and math.isfinite(cost) and figure is not None and math.isfinite(figure.mean):
            found.setdefault(title, []).append((cost, figure, one.shots))
    if not found:
        return ""
    numbers = _numbers(settings)
    ordered = {title: found[title] for title in dict.fromkeys(titles) if title in found}
    with drawing():
        drawing_of, axes = _figure()
        for title, row in ordered.items():
            _draw_cost(axes, row, numbers[title])
        _mark_shots(axes, [point for row in ordered.values() for point in row])
        _logarithmic(axes)
        axes.set_xlabel(label(f"{kind} per query"))
        axes.set_ylabel(label(metric))
        told = f"{metric} of {len(found)} methods against {kind} per query. The figures are in the tables."
        drawn = figure_svg(drawing_of, name, f"{metric} against cost", told)
    rows = [(title, numbers[title], len(row) > 1) for title, row in ordered.items()]
    caption = f"{words(metric)} against {words(kind)} per query; numbers are shots, bars are 95 % intervals"
    return _framed(drawn, caption, _legend(rows))


def spread_plot(entries: Sequence[Mapping[str, Any]], along: str, what: str, name: str) -> str:
    """Mean, median and the middle 90 % of `what` for each entry, by its number `along` ("beam" or "step")."""
    kept = [e for e in entries if all(e.get(k) is not None for k in ("mean", "median", "q05", "q95"))]
    if not kept:
        return ""
    places = [e[along] for e in kept]
    with drawing():
        figure, axes = _figure()
        low, high = ([e[key] for e in kept] for key in ("q05", "q95"))
        axes.vlines(places, low, high, color=series_colour(0), linewidth=5, alpha=0.35)
        axes.plot(places, [e["median"] for e in kept], "_", color=INK, markersize=14)
        axes.plot(places, [e["mean"] for e in kept], "o", color=series_colour(0), markersize=6)
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=":")
        axes.set_xlim(min(places) - 0.6, max(places) + 0.6)
        axes.set_xticks(places if len(places) <= 12 else places[:: math.ceil(len(places) / 12)])
        axes.set_xlabel(along)
        axes.set_ylabel(label(what))
        told = f"Mean, median and middle 90 % of {what} for {len(kept)} {along}s. The figures are in the table."
        drawn = figure_svg(figure, name, f"{what} by {along}", told)
    caption = f"{escape(what)} by {escape(along)}: mean (dot), median (dash), middle 90 % of anchors (bar)"
    return _framed(drawn, caption)


def histogram_plot(edges: Sequence[float], counts: Sequence[int], what: str, name: str) -> str:
    """How many anchors have a gain within each pair of edges; those below 0 are hatched."""
    if not sum(counts):
        return ""
    with drawing():
        figure, axes = _figure()
        widths = [b - a for a, b in pairwise(edges)]
        bars = axes.bar(edges[:-1], counts, widths, align="edge", color=series_colour(0), edgecolor=INK, linewidth=0.4)
        for bar, right in zip(bars, edges[1:], strict=True):
            if right <= 0:
                bar.set_facecolor(series_colour(1))
        axes.axvline(0, color=INK, linewidth=1, linestyle=":")
        axes.set_xlabel(what)
        axes.set_ylabel("anchors")
        told = f"Histogram of {what} over {sum(counts)} anchors; a line marks 0."
        drawn = figure_svg(figure, name, f"Distribution of {what}", told)
    return _framed(drawn, f"Distribution of {escape(what)}; left of the dotted line demonstrations do harm")


def chosen_plot(times: Sequence[Sequence[int]], name: str) -> str:
    """How many examples were chosen how often, both axes logarithmic."""
    if not times:
        return ""
    with drawing():
        figure, axes = _figure()
        axes.plot([t for t, _ in times], [n for _, n in times], "o", color=series_colour(0), markersize=5)
        _logarithmic(axes)
        _logarithmic(axes, "y")
        axes.set_xlabel("times chosen")
        axes.set_ylabel("examples")
        told = f"How many examples were chosen how often: from {times[0][0]} to {times[-1][0]} times."
        drawn = figure_svg(figure, name, "Examples by times chosen", told)
    return _framed(drawn, "How many examples were chosen how often; far to the right are hubs")


def _series(settings: Sequence[Shown], metric: str, gains: bool) -> dict[str, dict[int, Interval]]:
    found: dict[str, dict[int, Interval]] = {}
    for title, one in zip(labels(settings), settings, strict=True):
        figure = (one.gains if gains else one.metrics).get(metric)
        if figure is not None and math.isfinite(figure.mean):
            found.setdefault(title, {})[one.shots] = figure
    return found


def _numbers(settings: Sequence[Shown]) -> dict[str, int]:
    """The number of each method's colour, mark and line, the same in all plots of an evaluation."""
    return {title: number for number, title in enumerate(dict.fromkeys(labels(settings)))}


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _look(number: int) -> tuple[str, str, str]:
    """Colour, line style and mark of the series of this number."""
    return series_colour(number), STYLES[number // SERIES % len(STYLES)], MARKERS[number % len(MARKERS)]


def _draw_shots(axes: Axes, row: Mapping[int, Interval], number: int, lines: int) -> None:
    colour, style, marker = _look(number)
    shots = sorted(row)
    means, lows, highs = ([getattr(row[k], side) for k in shots] for side in ("mean", "low", "high"))
    if len(shots) > 1:
        axes.plot(shots, means, style, color=colour, marker=marker, linewidth=1.8, markersize=6)
        draw_spread(axes, shots, lows, highs, colour, number, lines)
        return
    axes.errorbar(shots, means, yerr=_spread(list(row.values())), fmt=marker, color=colour, capsize=3, markersize=7)
    if shots == [0]:
        axes.axhline(means[0], color=colour, linestyle=":", linewidth=1.2, zorder=0)


def _draw_cost(axes: Axes, row: Sequence[tuple[float, Interval, int]], number: int) -> None:
    colour, style, marker = _look(number)
    costs, means = [cost for cost, _, _ in row], [figure.mean for _, figure, _ in row]
    axes.errorbar(
        costs,
        means,
        yerr=_spread([figure for _, figure, _ in row]),
        linestyle=style if len(row) > 1 else "none",
        marker=marker,
        color=colour,
        capsize=3,
        markersize=7,
        linewidth=1.5,
        elinewidth=1.0,
    )


def _mark_shots(axes: Axes, points: Sequence[tuple[float, Interval, int]]) -> None:
    """Numbers of shots beside the marks; where these are many, beside the highest for each number only."""
    highest = {shots: max(i.mean for _, i, k in points if k == shots) for _, _, shots in points}
    for cost, figure, shots in points:
        if shots and (len(points) <= _MANY_MARKS or figure.mean == highest[shots]):
            axes.annotate(str(shots), (cost, figure.mean), textcoords="offset points", xytext=(7, 5), fontsize=9)


def _spread(found: Sequence[Interval]) -> list[list[float]]:
    """Lengths of error bars downwards and upwards, 0 where a bound is unknown."""
    return [
        [max(0.0, i.mean - i.low) if math.isfinite(i.low) else 0.0 for i in found],
        [max(0.0, i.high - i.mean) if math.isfinite(i.high) else 0.0 for i in found],
    ]


def _logarithmic(axes: Axes, which: str = "x") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12 if which == "x" else None, y=0.12 if which == "y" else None)


def _legend(rows: Sequence[tuple[str, int, bool]]) -> str:
    items = []
    for title, number, joined in rows:
        colour, style, marker = _look(number)
        items.append(f"<li>{swatch(marker, colour, _DASHES[style] if joined else 'none')} {words(title)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _framed(drawn: str, caption: str, legend: str = "") -> str:
    return f"<figure>{drawn}{legend}<figcaption>{caption}</figcaption></figure>"
