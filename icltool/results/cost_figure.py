"""The metric against what a query costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from icltool.results.costs import GIGA, cost_of, is_intervention
from icltool.results.figures import COLOURS, DOTS_PER_INCH, MARKERS, STYLES
from icltool.store.atomic import replace_file
from icltool.store.evaluations import SettingResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Of interventions, large: they lie near one another, as they cost about the same.
STARS = ("*", "X", "P", "p", "d", "H", "8")


def cost_figure(results: Sequence[SettingResult], path: Path, title: str = "") -> Path:
    """Draws the first metric against the FLOPs of a query (logarithmic; seconds where no FLOPs are known), a mark with its
    95 % interval for each setting that has a cost, as a PNG.

    A line joins the shots of a method, whose numbers stand beside the marks; methods differ in colour, mark and line style.
    Large marks are interventions. Raises ValueError where no setting has a cost, StoreError when `path` cannot be
    written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    drawn = [r for r in results if cost_of(r) and r.metrics]
    if not drawn:
        raise ValueError("no costs to draw")
    kind = "flops" if all(cost_of(r).get("flops") for r in drawn) else "seconds"
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    methods = dict.fromkeys(r.method for r in drawn)
    for number, method in enumerate(methods):
        _draw(axes, [r for r in drawn if r.method == method], kind, number)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel("GFLOPs per query" if kind == "flops" else "seconds per query")
    axes.set_ylabel(next(iter(drawn[0].metrics)))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        title="95 % intervals\nnumbers: shots\nlarge: in their place",
        loc="outside right upper",
        fontsize="small",
        title_fontsize="small",
        markerscale=0.7,
    )
    if title:
        axes.set_title(title, fontsize="medium")
    with replace_file(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": "icltool"})
    return Path(path)


def _draw(axes: Axes, results: Sequence[SettingResult], kind: str, number: int) -> None:
    """The settings of one method."""
    points = sorted(results, key=lambda r: r.shots)
    metric = next(iter(points[0].metrics))
    figures = [r.metrics[metric] for r in points]
    costs = [cost_of(r)[kind] / (GIGA if kind == "flops" else 1.0) for r in points]
    star = is_intervention(points[0])
    style = STYLES[number % len(STYLES)] if len(points) > 1 else "none"
    means = [f.mean for f in figures]
    spread = [[max(0.0, f.mean - f.low) for f in figures], [max(0.0, f.high - f.mean) for f in figures]]
    axes.errorbar(
        costs,
        means,
        yerr=spread,
        linestyle=style,
        marker=(STARS if star else MARKERS)[number % len(STARS if star else MARKERS)],
        markersize=12 if star else 6,
        markeredgecolor="black",
        markeredgewidth=0.6,
        color=COLOURS[number % len(COLOURS)],
        capsize=3,
        linewidth=1.5,
        elinewidth=1.0,
        label=points[0].method,
        zorder=4 if star else 3,
    )
    for result, x, y in zip(points, costs, means, strict=True):
        if result.shots:
            axes.annotate(str(result.shots), (x, y), textcoords="offset points", xytext=(7, 5), fontsize=8)
