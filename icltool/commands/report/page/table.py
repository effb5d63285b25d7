"""Result tables of the page, as HTML: readable without a script, and by a screen reader."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from icltool.commands.report.page.content import Comparison, Page, Shown
from icltool.results.grid import EMPTY
from icltool.results.intervals import Interval

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


def digits_of(page: Page, metric: str) -> int:
    """Digits after the point in which figures of this metric differ: 1 as in all tables of results, more for small ones."""
    if page.kind == "evaluations":
        return 1
    found = [abs(i.mean) for s in page.settings if (i := s.metrics.get(metric)) and math.isfinite(i.mean)]
    top = max(found, default=1.0)
    return 1 if top >= 1000 else 2 if top >= 100 else 3 if top >= 1 else digits_for(found, 4)


def digits_for(values: Iterable[float | None], least: int) -> int:
    """Digits after the point, `least` or more, with which the largest value has two that count."""
    top = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    return least if top == 0 else min(max(least, 1 - math.floor(math.log10(top))), _MOST)


def gain_digits(page: Page, metric: str, gains: Iterable[float | None]) -> int:
    """As `digits_of`, of gains, which may be far smaller than what they are gains of."""
    least = digits_of(page, metric)
    return least if page.kind == "evaluations" else digits_for(gains, least)


def words(text: str) -> str:
    """Text from data as HTML: escaped, its direction of writing kept to itself."""
    return f"<bdi>{escape(text)}</bdi>"


def labels(settings: Sequence[Shown]) -> list[str]:
    """The row title of each setting: its method, with the seed where the method was evaluated with several."""
    seeds: dict[str, set[int]] = {}
    for one in settings:
        seeds.setdefault(one.method, set()).add(one.seed)
    return [s.method if len(seeds[s.method]) == 1 else f"{s.method} (seed {s.seed})" for s in settings]


def html_table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], texts: Container[int] = (0,)) -> str:
    """A table in a box of its own that scrolls; caption, header and cells are HTML. `texts` are the columns of words, the
    rest are figures; the first cell of a row is its heading."""
    kinds = ["" if i in texts else ' class="figure"' for i in range(len(header))]
    heads = "".join(f'<th scope="col"{kind}>{h}</th>' for kind, h in zip(kinds, header, strict=True))
    lines = []
    for row in rows:
        first = f'<th scope="row">{row[0]}</th>'
        rest = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], row[1:], strict=True))
        lines.append(f"<tr>{first}{rest}</tr>")
    body = "\n".join(lines)
    name = _TAG.sub("", caption)
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{name}"><table><caption><span>{caption}</span></caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


_TAG = re.compile(r"<[^>]*>")


def metric_table(page: Page, settings: Sequence[Shown], metric: str, gains: bool = False) -> str:
    """Methods by shots: mean and 95 % interval of one metric, the best of each column bold; "" where none has it.

    With `gains` the figures are those over zero-shot.
    """
    titles = labels(settings)
    cells: dict[str, dict[int, Interval]] = {}
    for title, one in zip(titles, settings, strict=True):
        found = (one.gains if gains else one.metrics).get(metric)
        if found is not None:
            cells.setdefault(title, {})[one.shots] = found
    shots = sorted({k for row in cells.values() for k in row})
    if not cells:
        return ""
    means = [found.mean for row in cells.values() for found in row.values()]
    digits = gain_digits(page, metric, means) if gains else digits_of(page, metric)
    best = {k: _best([row[k].mean for row in cells.values() if k in row], metric, page, digits) for k in shots}
    rows = [[words(title), *(_cell(row.get(k), digits, best[k], gains) for k in shots)] for title, row in cells.items()]
    better = ", lower is better" if metric in page.lower_is_better else ""
    what = ": gain over zero-shot" if gains else ""
    bold = ", best of each column in bold" if any(b is not None for b in best.values()) else ""
    caption = f"<strong>{words(metric)}</strong>{what}: mean [95 % interval]{better}{bold}"
    return html_table(caption, ["method", *(f"{k}-shot" for k in shots)], rows)


def _best(means: Sequence[float], metric: str, page: Page, digits: int) -> float | None:
    """The best figure of a column as printed; None in a column with a single one."""
    found = [round(m, digits) for m in means if math.isfinite(m)]
    if len(found) < 2:
        return None
    return min(found) if metric in page.lower_is_better else max(found)


def _cell(found: Interval | None, digits: int, best: float | None, signed: bool) -> str:
    if found is None:
        return EMPTY
    mean = number(found.mean, digits, signed)
    if best is not None and math.isfinite(found.mean) and round(found.mean, digits) == best:
        mean = f'<strong class="best">{mean}</strong>'
    return f"{mean} {interval(found, digits, signed)}"


def interval(found: Interval, digits: int, signed: bool = False) -> str:
    """The bounds, smaller; "" where they are unknown."""
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return ""
    return f'<span class="interval">[{number(found.low, digits, signed)}, {number(found.high, digits, signed)}]</span>'


def comparison_table(page: Page, found: Sequence[Comparison]) -> str:
    """Paired tests of one evaluation, what they say in words; "" without any."""
    if not found:
        return ""
    corrected = any(math.isfinite(c.holm) for c in found)
    several = len({c.metric for c in found}) > 1
    header = [
        "compared",
        *(["metric"] if several else []),
        "difference",
        "p",
        *(["p (Holm)"] if corrected else []),
        "in words",
    ]
    rows = []
    for one in found:
        digits = digits_of(page, one.metric)
        seed = getattr(one, "seed", None)
        pair = f"{words(one.first)} {MINUS} {words(one.second)}{'' if seed is None else f' (seed {seed})'}"
        mean = number(one.difference.mean, digits, signed=True)
        figures = [
            f"{f'<strong>{mean}</strong>' if _apart(one) else mean} {interval(one.difference, digits, signed=True)}",
            _share(one.p),
            *([_share(one.holm)] if corrected else []),
        ]
        rows.append([pair, *([words(one.metric)] if several else []), *figures, _verdict(page, one)])
    of = "Differences" if several else f"Differences in <strong>{words(found[0].metric)}</strong>"
    caption = f"{of} on the same queries [95 % interval], bold where it leaves out 0; p (Holm): for all of them"
    if not corrected:
        caption = caption.rpartition(";")[0]
    return html_table(caption, header, rows, texts=(0, 1, len(header) - 1) if several else (0, len(header) - 1))


def differs(one: Comparison) -> bool:
    """Whether a difference is shown: the interval leaves out 0, and p, corrected for the number of tests, is below 5 %
    where it is known."""
    return _apart(one) and not one.holm >= _LEVEL


def _apart(one: Comparison) -> bool:
    return one.difference.low > 0 or one.difference.high < 0


def _verdict(page: Page, one: Comparison) -> str:
    """What a paired test says."""
    if not _apart(one):
        return "undecided"
    first = (one.difference.low > 0) != (one.metric in page.lower_is_better)
    said = f"{words(one.first if first else one.second)} is better"
    return said if differs(one) else f"{said}, but not after correction"


def _share(p: float) -> str:
    return EMPTY if not math.isfinite(p) else "&lt; 0.001" if p < 0.001 else f"{p:.3f}"


def cost_table(settings: Sequence[Shown]) -> str:
    """What a query costs, a row per setting; "" where nothing was measured."""
    kinds = list(dict.fromkeys(kind for s in settings for kind in s.cost))
    if not kinds:
        return ""
    rows = [
        [words(title), str(one.shots), *(_significant(one.cost.get(kind)) for kind in kinds)]
        for title, one in zip(labels(settings), settings, strict=True)
        if one.cost
    ]
    return html_table("<strong>Cost</strong> per query", ["method", "shots", *map(words, kinds)], rows)


def _significant(value: float | None, digits: int = 3) -> str:
    if value is None or not math.isfinite(value):
        return EMPTY
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def outcome_table(page: Page, settings: Sequence[Shown]) -> str:
    """How many queries each setting answers better, worse and equally well as zero-shot; "" where that is unknown."""
    rows = []
    for title, one in zip(labels(settings), settings, strict=True):
        for metric, (better, worse, equal) in getattr(one, "outcomes", {}).items():
            if metric in page.metrics:
                rows.append([words(title), words(metric), str(one.shots), *map(str, (better, worse, equal))])
    if not rows:
        return ""
    caption = "<strong>Queries against zero-shot</strong>: how many are better, worse and equal"
    return html_table(caption, ["method", "metric", "shots", "better", "worse", "equal"], rows, texts=(0, 1))


def over_seeds(settings: Sequence[Shown], found: Sequence[Mapping[str, Any]]) -> list[Shown]:
    """The settings with those of one method and number of shots that `found` has a mean over seeds of as one; its cost is
    that of the first seed with one, and there are no gains."""
    means = {(entry["method"], entry["shots"]): entry for entry in found}
    done: set[tuple[str, int]] = set()
    shown = []
    for one in settings:
        key = one.method, one.shots
        if key not in means or one.seed not in means[key]["seeds"]:
            shown.append(one)
        elif key not in done:
            done.add(key)
            alike = [s for s in settings if (s.method, s.shots) == key]
            figures = {name: _interval(entry) for name, entry in means[key]["metrics"].items()}
            first = min(means[key]["seeds"])
            cost = next((s.cost for s in alike if s.cost), {})
            shown.append(replace(one, seed=first, metrics={**one.metrics, **figures}, gains={}, cost=cost))
    return shown


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval(*(_number(found.get(side)) for side in ("mean", "low", "high")))


def seed_table(page: Page, found: Sequence[Mapping[str, Any]]) -> str:
    """Means over seeds with their spread; "" without any."""
    rows = []
    for one in found:
        for metric, figures in one["metrics"].items():
            digits = digits_of(page, metric)
            mean = _interval(figures)
            spread = [number(_number(figures.get(k)), digits) for k in ("sd", "min", "max")]
            seeds = ", ".join(map(str, one["seeds"]))
            cell = f"{number(mean.mean, digits)} {interval(mean, digits)}"
            rows.append([words(one["method"]), words(metric), seeds, str(one["shots"]), cell, *spread])
    if not rows:
        return ""
    header = ["method", "metric", "seeds", "shots", "mean", "standard deviation", "lowest", "highest"]
    return html_table("<strong>Means over seeds</strong> [95 % interval]", header, rows, texts=(0, 1, 2))


def type_tables(page: Page, settings: Mapping[int, str], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Figures by type of query, a table per column and metric; `settings` has the row titles of those to show."""
    tables = []
    chosen = [entry for entry in found if entry["setting"] in settings]
    for column in dict.fromkeys(entry["column"] for entry in chosen):
        entries = [entry for entry in chosen if entry["column"] == column]
        values = list(dict.fromkeys(entry["value"] for entry in entries))
        counts = {entry["value"]: entry["queries"] for entry in entries}
        for metric in (m for m in page.metrics if any(m in entry["metrics"] for entry in entries)):
            figures = {(e["setting"], e["value"]): _number(e["metrics"].get(metric)) for e in entries}
            rows = [
                [words(title), *(number(figures.get((s, v)), digits_of(page, metric)) for v in values)]
                for s, title in settings.items()
                if any((s, v) in figures for v in values)
            ]
            header = ["setting", *(f"{words(v)} ({counts[v]})" for v in values)]
            caption = f"<strong>{words(metric)}</strong> by {words(column)} (number of queries)"
            tables.append(html_table(caption, header, rows))
    return tables


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
