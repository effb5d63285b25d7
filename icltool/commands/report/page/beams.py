"""The sections of a page about generated sequences: what to judge them by before anything is trained on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from icltool.commands.report.page.content import Page
from icltool.commands.report.page.plots import chosen_plot, histogram_plot, spread_plot
from icltool.commands.report.page.table import digits_for, html_table, number, words
from icltool.results.grid import EMPTY

_GAIN = "gain over no demonstrations"
_STEP = "gain of a step"


def beam_sections(page: Page) -> str:
    """Facts, gains by beam and by step, and the examples that were chosen most often, as far as `Page.extra` has them."""
    extra = page.extra
    parts = [_facts(extra), _gains(extra), _steps(extra), _hubs(page, extra)]
    return "\n".join(filter(None, parts))


def _facts(extra: Mapping[str, Any]) -> str:
    """What a person looks at first, as a list of terms."""
    lines: list[tuple[str, str]] = []
    if anchors := extra.get("anchors"):
        lines.append(
            ("Anchors", f"{anchors['finished']:,} of {anchors['total']:,} finished, {anchors['shown']:,} shown below")
        )
    if worse := extra.get("worse"):
        lines.append(
            ("Best beam worse than no demonstrations", f"{worse['worse']:,} anchors ({_share(worse['share'])})")
        )
    if found := extra.get("diversity"):
        lines.append(("Distinct sequences", f"{found['distinct']:,} of {found['sequences']:,}"))
        lines.append(("Demonstrations that two beams of an anchor share", _share(found.get("overlap"))))
        lines.append(("Distinct demonstrations per anchor", number(found.get("per_anchor"), 1)))
    if hubs := extra.get("hubness"):
        of = f" of {hubs['pool']:,} candidates" if hubs.get("pool") else ""
        lines.append(("Examples chosen at all", f"{hubs['distinct']:,}{of}"))
        lines.append(("Places taken by the most chosen 1 %", _share(hubs.get("top_share"))))
        lines.append(("Skewness of times chosen", number(hubs.get("skewness"), 2)))
    if not lines:
        return ""
    items = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in lines)
    return f'<dl class="facts">{items}</dl>'


def _gains(extra: Mapping[str, Any]) -> str:
    found = extra.get("gains") or {}
    beams = found.get("beams") or []
    if not beams:
        return ""
    best = histogram_plot(found["edges"], beams[0]["counts"], f"{_GAIN}, beam {beams[0]['beam']}", "gains-best")
    plots = f'<div class="plots">{best}{spread_plot(beams, "beam", _GAIN, "gains-beams")}</div>'
    return f"<h3>Gains by beam</h3>\n{plots}\n{_spreads('Gains by beam', 'beam', beams)}"


def _steps(extra: Mapping[str, Any]) -> str:
    steps = (extra.get("steps") or {}).get("steps") or []
    if not steps:
        return ""
    table = _spreads("Gains by step", "step", steps)
    plot = spread_plot(steps, "step", _STEP, "gains-steps")
    return f'<h3>Gains by step of the search (best beams)</h3>\n<div class="pair">{table}{plot}</div>'


def _spreads(caption: str, along: str, entries: Sequence[Mapping[str, Any]]) -> str:
    digits = _digits([e.get("q95") for e in entries] + [e.get("q05") for e in entries])
    rows = [
        [
            str(e[along]),
            f"{e['anchors']:,}",
            *(number(e.get(key), digits, signed=True) for key in ("mean", "median", "q05", "q95")),
            _share(e.get("positive")),
        ]
        for e in entries
    ]
    header = [along, "anchors", "mean", "median", "5 %", "95 %", "above 0"]
    return html_table(f"<strong>{escape(caption)}</strong>: mean, median, quantiles, share above 0", header, rows)


def _digits(values: Sequence[float | None]) -> int:
    top = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=1.0)
    return 1 if top >= 100 else 2 if top >= 10 else 3 if top >= 1 else digits_for([top], 4)


def _hubs(page: Page, extra: Mapping[str, Any]) -> str:
    found = extra.get("hubness") or {}
    if not found.get("top"):
        return ""
    rows = []
    for entry in found["top"]:
        place = entry.get("demonstration")
        icd = None if place is None else page.demonstrations[place]
        said = EMPTY if icd is None else words(" — ".join(filter(None, (icd.text, icd.label))))
        rows.append([str(entry["id"]), said, f"{entry['count']:,}", _share(entry.get("share"))])
    table = html_table(
        "<strong>Most chosen demonstrations</strong>", ["id", "text and label", "times", "anchors"], rows, texts=(0, 1)
    )
    plot = chosen_plot(found.get("times") or [], "chosen")
    return f'<h3>Most chosen demonstrations</h3>\n<div class="pair">{table}{plot}</div>'


def _share(value: float | None) -> str:
    return EMPTY if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"
