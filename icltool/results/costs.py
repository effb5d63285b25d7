"""Costs per query: what stands in for demonstrations against the demonstrations themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icltool.results.grid import EMPTY
from icltool.store.evaluations import SettingResult

if TYPE_CHECKING:
    from rich.table import Table

#: What is compared: key in `extra["cost"]`, and what it is called.
KINDS = ("prompt_tokens", "flops", "seconds")
#: How a column of them is headed, and one of ratios.
HEADINGS = {"prompt_tokens": "tokens", "flops": "GFLOPs", "seconds": "s"}
RATIOS = {"prompt_tokens": "tok.", "flops": "FLOPs", "seconds": "s"}
GIGA = 1e9
#: Significant digits of a figure; of seconds, which other work on the machine changes, fewer.
DIGITS, SECONDS_DIGITS = 3, 2


def cost_of(result: SettingResult) -> Mapping[str, Any]:
    """What was measured of a setting; {} where nothing was."""
    return result.extra.get("cost", {})


def stands_in(result: SettingResult) -> bool:
    """Whether the setting's method stands in for demonstrations."""
    return "intervention" in result.extra


def savings(results: Sequence[SettingResult]) -> list[dict[str, Any]]:
    """For each method that stands in for demonstrations, against each setting with demonstrations: how many times as much
    of each kind that takes, None where one of the two is not known. Seconds of two devices, or of two calls, which had
    other work beside them, are not compared."""
    costed = [r for r in results if cost_of(r)]
    return [
        {"method": one.method, "to": other.method, "shots": other.shots, "seed": other.seed, **_ratios(one, other)}
        for one in costed
        if stands_in(one)
        for other in costed
        if other.shots
    ]


def cost_table(results: Sequence[SettingResult]) -> Table:
    """A row per setting with costs: the costs, and how many times those of the first method that stands in for
    demonstrations they are. Where it is narrow, long names go on in a further line before any figure does."""
    from rich.table import Table
    from rich.text import Text

    first = next((r for r in results if stands_in(r) and cost_of(r)), None)
    against = "" if first is None else f"; x: times what {first.method} takes"
    table = Table(caption=Text(f"cost per query: prompt tokens, GFLOPs, seconds{against}", style="table.caption"))
    table.add_column("method", overflow="fold")
    headings = ["shots", *HEADINGS.values(), *(f"x {name}" for name in RATIOS.values() if first is not None)]
    for name in headings:
        table.add_column(name, justify="right", overflow="fold")
    for result in results:
        if cost := cost_of(result):
            flops = cost.get("flops")
            cells = [
                str(result.shots),
                _number(cost.get("prompt_tokens")),
                _number(None if flops is None else flops / GIGA),
                _number(cost.get("seconds"), SECONDS_DIGITS),
            ]
            if first is not None:
                ratios = _ratios(first, result)
                cells += [_number(ratios[kind], SECONDS_DIGITS if kind == "seconds" else DIGITS) for kind in KINDS]
            table.add_row(Text(result.method), *cells)
    return table


def cost_remarks(results: Sequence[SettingResult]) -> list[str]:
    """What the costs are of, and what should be known of them."""
    costs = [cost for r in results if (cost := cost_of(r))]
    if not costs:
        return []
    queries, devices = {c["queries"] for c in costs}, sorted({c["device"] for c in costs})
    lines = [
        f"costs: {'/'.join(map(str, sorted(queries)))} queries answered one by one, images encoded, nothing shared, on "
        f"{' and '.join(devices)}: mean prompt tokens and FLOPs (2 for a multiplication with its addition), median "
        "seconds; choosing demonstrations is not in them"
    ]
    if len(devices) > 1:
        lines.append("costs were measured on different devices: their seconds are not compared")
    else:
        lines += _elsewhere(results)
    if any(c.get("flops") is None for c in costs):
        lines.append("FLOPs of quantized weights cannot be counted")
    if any(c.get("uncounted") for c in costs):
        lines.append("FLOPs are without the products within attention: flash_attention_2 does not tell them")
    return lines


def _ratios(one: SettingResult, other: SettingResult) -> dict[str, float | None]:
    """other / one by kind."""
    a, b = cost_of(one), cost_of(other)
    alike = all(a.get(key) == b.get(key) for key in ("device", "call"))
    found: dict[str, float | None] = {}
    for kind in KINDS:
        known = a.get(kind) and b.get(kind) is not None and (alike or kind != "seconds")
        found[kind] = b[kind] / a[kind] if known else None
    return found


def _elsewhere(results: Sequence[SettingResult]) -> list[str]:
    """A line for each method that stands in for demonstrations, where seconds of others were taken in another call."""
    lines = []
    costed = [r for r in results if cost_of(r)]
    for one in costed:
        if stands_in(one):
            others = [r for r in costed if r.shots and cost_of(r).get("call") != cost_of(one).get("call")]
            named = ", ".join(dict.fromkeys(f"{r.method} {r.shots}-shot" for r in others))
            if named:
                lines.append(f"seconds of {named} are from another call than those of {one.method}: not compared")
    return lines


def _number(value: float | None, digits: int = DIGITS) -> str:
    """With so many significant digits; the digits before the point are all there."""
    if value is None:
        return EMPTY
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if abs(float(text)) >= 10**digits else text
