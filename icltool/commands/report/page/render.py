"""The report as one HTML file: no network, no server, nothing that its policy does not name."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from icltool.commands.report.page.beams import beam_sections
from icltool.commands.report.page.content import Page, Shown, Source
from icltool.commands.report.page.payload import columns, packed, pictures
from icltool.commands.report.page.plots import cost_plot, shots_plot
from icltool.commands.report.page.table import (
    comparison_table,
    cost_table,
    differs,
    labels,
    metric_table,
    outcome_table,
    over_seeds,
    seed_table,
    type_tables,
    words,
)

#: The parts of the script, in the order in which they stand in the page.
SCRIPTS = ("data.js", "cards.js", "page.js")
#: Paired tests up to this many are open.
_FEW = 12


def render(page: Page) -> str:
    """The whole page as HTML5, to be written as UTF-8; the same for the same Page.

    Everything that comes from data is escaped or compressed; the policy (Content-Security-Policy) lets in one style sheet
    and two scripts, by their hashes, and pictures that the page itself holds. Raises ValueError where a picture is not one.
    """
    style = _file("page.css")
    script = "\n".join(_file(name) for name in SCRIPTS)
    first = _file("theme.js")
    sections = beam_sections(page) if page.kind == "sequences" else ""
    html = Template(_file("page.html")).substitute(
        policy=escape(_policy(style, first, script)),
        title=words(page.title),
        plain_title=escape(page.title),
        made=escape(page.made),
        version=escape(page.version),
        style=style,
        first=first,
        script=script,
        sample=_sample(page),
        remarks=_remarks(page.remarks),
        sources="\n".join(map(_source, page.sources)),
        summary=sections,
        results="\n".join(_evaluation(page, n, source) for n, source in enumerate(page.sources)),
        gallery="Sequences" if page.kind == "sequences" else "Gallery",
        payload=packed(columns(page)),
        pictures=pictures(page),
    )
    return html.encode("utf-8", "replace").decode("utf-8")


def _file(name: str) -> str:
    return files("icltool.commands.report.page").joinpath(name).read_text(encoding="utf-8")


def _sample(page: Page) -> str:
    """Which queries are in the gallery, where they are not all."""
    shown = page.extra.get("shown") or {}
    if not shown or shown["queries"] >= shown["of"]:
        return ""
    return f'<p class="under">{shown["queries"]:,} of {shown["of"]:,} queries; tables and plots are of all.</p>'


def _policy(style: str, *scripts: str) -> str:
    parts = (
        "default-src 'none'",
        "img-src data:",
        f"style-src '{_digest(style)}'",
        "script-src " + " ".join(f"'{_digest(script)}'" for script in scripts),
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
    )
    return "; ".join(parts)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _remarks(remarks: Sequence[str]) -> str:
    if not remarks:
        return ""
    return f'<ul class="remarks">{"".join(f"<li>{words(remark)}</li>" for remark in remarks)}</ul>'


def _source(source: Source) -> str:
    lines = "".join(f"<div><dt>{words(label)}</dt><dd>{words(value)}</dd></div>" for label, value in source.lines)
    return (
        f"<details><summary>{words(source.title)} <code>{words(source.path)}</code></summary>"
        f'<dl class="facts">{lines}</dl></details>'
    )


def _evaluation(page: Page, number: int, source: Source) -> str:
    """Tables, plots and tests of one evaluation: the first metric open, the rest within reach."""
    settings = [s for s in page.settings if s.evaluation == number]
    if not settings:
        return ""
    seeds = [entry for entry in page.extra.get("seeds", []) if entry["evaluation"] == number]
    means = over_seeds(settings, seeds)
    metrics = [m for m in page.metrics if any(m in s.metrics for s in settings)]
    plots, costs = _plots(page, means, metrics, number)
    further = [metric_table(page, means, m) + _row(plot) for m, plot in zip(metrics[1:], plots[1:], strict=True)]
    single = [metric_table(page, settings, m) for m in metrics] if len(means) < len(settings) else []
    parts = [
        f'<h3 id="results-{number}">{words(source.title)}</h3>',
        _remarks(source.remarks),
        metric_table(page, means, metrics[0]) if metrics else "",
        _row(*plots[:1], *costs[:1]),
        _compared(page, number),
        _folded("Cost per query", cost_table(settings) + _row(*costs[1:])),
        _folded("Gains over zero-shot", _gains(page, settings, number)),
        _folded("Further metrics" if len(further) > 1 else "Further metric", "\n".join(further)),
        _folded("Seeds", "\n".join(filter(None, [seed_table(page, seeds), *single]))),
        _folded("Figures by type of query", "\n".join(_types(page, settings))),
        _folded("More about the settings", _lines(settings)),
    ]
    content = "\n".join(filter(None, parts))
    return f'<section class="evaluation" aria-labelledby="results-{number}">{content}</section>'


def _plots(page: Page, settings: Sequence[Shown], metrics: Sequence[str], number: int) -> tuple[list[str], list[str]]:
    """Each metric against shots (of sequences none, as all have the same number), and the first one against each cost."""
    if page.kind == "sequences" or not metrics:
        return [""] * len(metrics), []
    kinds = dict.fromkeys(kind for s in settings for kind in s.cost)
    return (
        [shots_plot(page, settings, m, f"shots-{number}-{i}") for i, m in enumerate(metrics)],
        [cost_plot(page, settings, metrics[0], kind, f"cost-{number}-{i}") for i, kind in enumerate(kinds)],
    )


def _row(*plots: str) -> str:
    return f'<div class="plots">{"".join(plots)}</div>' if any(plots) else ""


def _compared(page: Page, number: int) -> str:
    """The paired tests of an evaluation, open where they are few."""
    found = [c for c in page.comparisons if c.evaluation == number]
    decided = sum(map(differs, found))
    title = f"Paired tests: {decided} of {len(found)} with a difference"
    return _folded(title, comparison_table(page, found), opened=len(found) <= _FEW)


def _gains(page: Page, settings: Sequence[Shown], number: int) -> str:
    parts = []
    for i, metric in enumerate(page.metrics):
        if table := metric_table(page, settings, metric, gains=True):
            sequences = page.kind == "sequences"
            plot = "" if sequences else shots_plot(page, settings, metric, f"gain-{number}-{i}", gains=True)
            parts.append(table + _row(plot))
    return "\n".join([*parts, outcome_table(page, settings)]).strip()


def _types(page: Page, settings: Sequence[Shown]) -> list[str]:
    chosen = {id(s) for s in settings}
    names = {
        place: f"{title} {one.shots}-shot" if one.shots else title
        for place, one in enumerate(page.settings)
        if id(one) in chosen
        for title in [labels(settings)[[id(s) for s in settings].index(id(one))]]
    }
    return type_tables(page, names, page.extra.get("types", []))


def _lines(settings: Sequence[Shown]) -> str:
    parts = []
    for title, one in zip(labels(settings), settings, strict=True):
        if one.lines:
            rows = "".join(f"<div><dt>{words(label)}</dt><dd>{words(value)}</dd></div>" for label, value in one.lines)
            parts.append(f'<h4>{words(title)}, {one.shots} shots</h4><dl class="facts">{rows}</dl>')
    return "".join(parts)


def _folded(title: str, content: str, opened: bool = False) -> str:
    if not content:
        return ""
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>\n{content}\n</details>"
