"""Figures of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.results.grid import Grid, GridRow, result_grid
from icltool.store.atomic import replace_file
from icltool.store.evaluations import SettingResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which people with any of the common colour deficiencies can tell apart; the line style
# changes with each round through them, the marker with each method.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DOTS_PER_INCH = 150
#: More bands than these over one another are a grey block: then each interval is a bar, a little beside the others.
MOST_BANDS = 3
_APART = 2.5  # points


def result_figure(results: Sequence[SettingResult], path: Path, title: str = "") -> Path:
    """Draws each metric against the number of shots, a line per method with its 95 % intervals (see `draw_spread`), as a PNG.

    A method that was evaluated with a single number of shots is a point with an error bar; without demonstrations, a
    dotted line across shows its level. Raises ValueError without results, StoreError when `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    grid = result_grid(results)
    if not grid.rows:
        raise ValueError("no results to draw")
    width = 6.4 if len(grid.metrics) == 1 else 5.2 * len(grid.metrics)
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric in zip(figure.subplots(1, len(grid.metrics), squeeze=False)[0], grid.metrics, strict=True):
        _draw(axes, grid, metric)
    if title:
        figure.suptitle(title)
    with replace_file(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": "icltool"})
    return Path(path)


def _draw(axes: Axes, grid: Grid, metric: str) -> None:
    methods = list(dict.fromkeys(row.method for row in grid.rows))
    lines = sum(row.metric == metric and len(row.cells) > 1 for row in grid.rows)
    for row in grid.rows:
        if row.metric == metric:
            _draw_row(axes, row, methods.index(row.method), lines)
    axes.set_xlabel("shots")
    axes.set_ylabel(metric)
    axes.set_xticks(grid.shots)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="95 % intervals", fontsize="small", title_fontsize="small")


def draw_spread(
    axes: Axes,
    shots: Sequence[int],
    lows: Sequence[float],
    highs: Sequence[float],
    colour: str,
    number: int,
    lines: int,
) -> None:
    """The intervals of line `number` of `lines`: a band, or bars where there would be more than MOST_BANDS."""
    if lines <= MOST_BANDS:
        axes.fill_between(shots, lows, highs, color=colour, alpha=0.15, linewidth=0)
        return
    from matplotlib.transforms import ScaledTranslation

    beside = ScaledTranslation((number - (lines - 1) / 2) * _APART / 72, 0, axes.figure.dpi_scale_trans)
    axes.vlines(shots, lows, highs, color=colour, linewidth=1.2, transform=axes.transData + beside)
    axes.update_datalim([(x, y) for x, *ends in zip(shots, lows, highs, strict=True) for y in ends])
    axes.autoscale_view()


def _draw_row(axes: Axes, row: GridRow, number: int, lines: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    style = STYLES[number // len(COLOURS) % len(STYLES)]
    marker = MARKERS[number % len(MARKERS)]
    shots = sorted(row.cells)
    intervals = [row.cells[k].result for k in shots]
    means, lows, highs = ([getattr(r, name) for r in intervals] for name in ("mean", "low", "high"))
    if len(shots) > 1:
        axes.plot(shots, means, style, color=colour, marker=marker, label=row.method, linewidth=1.8, markersize=5)
        draw_spread(axes, shots, lows, highs, colour, number, lines)
        return
    spread = [[max(0.0, means[0] - lows[0])], [max(0.0, highs[0] - means[0])]]
    axes.errorbar(shots, means, yerr=spread, fmt=marker, color=colour, label=row.method, capsize=3, markersize=6)
    if shots == [0]:
        axes.axhline(means[0], color=colour, linestyle=":", linewidth=1, zorder=0)
