"""Costs per query beside the metric: what stands in for demonstrations against the demonstrations themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from icltool.report.grid import EMPTY, Cell
from icltool.store.evaluations import SettingResult

if TYPE_CHECKING:
    from rich.table import Table

#: What is compared: key in `extra["cost"]`, and what it is called.
KINDS = {"prompt_tokens": "prompt tokens", "flops": "FLOPs", "seconds": "seconds"}
GIGA = 1e9


def cost_of(result: SettingResult) -> Mapping[str, Any]:
    """What was measured of a setting; {} where nothing was."""
    found: Mapping[str, Any] = result.extra.get("cost", {})
    return found


def stands_in(result: SettingResult) -> bool:
    """Whether the setting's method stands in for demonstrations."""
    return "intervention" in result.extra


def savings(results: Sequence[SettingResult]) -> list[dict[str, Any]]:
    """For each method that stands in for demonstrations, against each setting with demonstrations: how many times as much
    of each kind that takes, None where one of the two is not known. Seconds of two devices are not compared."""
    costed = [r for r in results if cost_of(r)]
    return [
        {"method": one.method, "to": other.method, "shots": other.shots, "seed": other.seed, **_ratios(one, other)}
        for one in costed
        if stands_in(one)
        for other in costed
        if other.shots
    ]


def cost_table(results: Sequence[SettingResult], metric: str) -> Table:
    """A row per setting with costs: the metric with its interval, the costs, and how many times those of the first method
    that stands in for demonstrations they are."""
    from rich.table import Table
    from rich.text import Text

    first = next((r for r in results if stands_in(r) and cost_of(r)), None)
    against = "" if first is None else f"; last columns: how many times what {first.method} takes"
    table = Table(caption=f"cost per query, and {metric} [95 % interval]{against}")
    table.add_column("method", no_wrap=True)
    for name in ("shots", metric, "prompt tokens", "GFLOPs", "seconds"):
        table.add_column(name, justify="right")
    for name in KINDS.values() if first is not None else ():
        table.add_column(f"x {name}", justify="right")
    for result in results:
        if cost := cost_of(result):
            figure = result.metrics.get(metric)
            flops = cost.get("flops")
            cells = [
                str(result.shots),
                EMPTY if figure is None else Cell(figure, False).text,
                _number(cost.get("prompt_tokens")),
                _number(None if flops is None else flops / GIGA),
                _number(cost.get("seconds")),
            ]
            if first is not None:
                cells += [EMPTY if ratio is None else f"{ratio:.3g}" for ratio in _ratios(first, result).values()]
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
    if any(c.get("flops") is None for c in costs):
        lines.append("FLOPs of quantized weights cannot be counted")
    if any(c.get("uncounted") for c in costs):
        lines.append("FLOPs are without the products within attention: flash_attention_2 does not tell them")
    return lines


def _ratios(one: SettingResult, other: SettingResult) -> dict[str, float | None]:
    """other / one by kind."""
    a, b = cost_of(one), cost_of(other)
    alike = a.get("device") == b.get("device")
    found: dict[str, float | None] = {}
    for kind in KINDS:
        known = a.get(kind) and b.get(kind) is not None and (alike or kind != "seconds")
        found[kind] = b[kind] / a[kind] if known else None
    return found


def _number(value: float | None) -> str:
    if value is None:
        return EMPTY
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
