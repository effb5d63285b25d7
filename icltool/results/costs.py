"""Costs per query: interventions against demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from icltool.results.grid import EMPTY
from icltool.results.sheet import Figure, Row, Sheet
from icltool.store.evaluations import SettingResult

#: The kinds of cost: keys in `extra["cost"]`.
KINDS = ("prompt_tokens", "flops", "seconds")
#: How a column of them is headed, and one of ratios.
HEADINGS = {"prompt_tokens": "tokens", "flops": "GFLOPs", "seconds": "s"}
RATIOS = {"prompt_tokens": "tok.", "flops": "FLOPs", "seconds": "s"}
GIGA = 1e9
#: Significant digits of a figure; of seconds, which other work on the machine changes, fewer.
DIGITS, SECONDS_DIGITS = 3, 2


def cost_of(result: SettingResult) -> Mapping[str, Any]:
    """The measured costs of a setting; {} if nothing was measured."""
    return result.extra.get("cost", {})


def is_intervention(result: SettingResult) -> bool:
    """Whether the setting's method is an intervention."""
    return "intervention" in result.extra


def savings(results: Sequence[SettingResult]) -> list[dict[str, Any]]:
    """For each intervention, against each setting with demonstrations: how many times as much of each kind the demonstrations
    take, None if one of the two is unknown. Seconds of two devices, or of two calls, which had
    other work beside them, are not compared."""
    costed = [r for r in results if cost_of(r)]
    return [
        {"method": one.method, "to": other.method, "shots": other.shots, "seed": other.seed, **_ratios(one, other)}
        for one in costed
        if is_intervention(one)
        for other in costed
        if other.shots
    ]


def cost_sheet(results: Sequence[SettingResult]) -> Sheet:
    """A row per setting with costs: the costs, and how many times those of the first intervention they are."""
    first = next((r for r in results if is_intervention(r) and cost_of(r)), None)
    against = "" if first is None else f"; x: times the cost of {first.method}"
    rows = []
    for result in results:
        if cost := cost_of(result):
            flops = cost.get("flops")
            texts = [
                str(result.shots),
                _number(cost.get("prompt_tokens")),
                _number(None if flops is None else flops / GIGA),
                _number(cost.get("seconds"), SECONDS_DIGITS),
            ]
            if first is not None:
                ratios = _ratios(first, result)
                texts += [_number(ratios[kind], SECONDS_DIGITS if kind == "seconds" else DIGITS) for kind in KINDS]
            rows.append(Row(result.method, [Figure(text) for text in texts]))
    headings = ["shots", *HEADINGS.values(), *(f"x {name}" for name in RATIOS.values() if first is not None)]
    caption = f"prompt tokens, GFLOPs and seconds{against}"
    return Sheet("method", headings, rows, title="Cost per query", caption=caption)


def cost_details(results: Sequence[SettingResult]) -> list[str]:
    """How the costs were measured."""
    costs = [cost for r in results if (cost := cost_of(r))]
    if not costs:
        return []
    queries, devices = sorted({c["queries"] for c in costs}), sorted({c["device"] for c in costs})
    return [
        f"costs: {'/'.join(map(str, queries))} queries answered one by one, images encoded, nothing shared, on "
        f"{' and '.join(devices)}: mean prompt tokens and FLOPs (2 for a multiplication with its addition), median "
        "seconds, without the choice of demonstrations"
    ]


def cost_notes(results: Sequence[SettingResult]) -> list[str]:
    """Which costs are missing or not comparable."""
    costs = [cost for r in results if (cost := cost_of(r))]
    if len({c["device"] for c in costs}) > 1:
        lines = ["costs were measured on different devices: their seconds are not compared"]
    else:
        lines = _of_other_calls(results)
    if any(c.get("flops") is None for c in costs):
        lines.append("FLOPs of quantized weights cannot be counted")
    if any(c.get("uncounted") for c in costs):
        lines.append("FLOPs exclude the products within attention, which flash_attention_2 does not report")
    return lines


def _ratios(one: SettingResult, other: SettingResult) -> dict[str, float | None]:
    """other / one by kind."""
    a, b = cost_of(one), cost_of(other)
    alike = all(a.get(key) == b.get(key) for key in ("device", "call"))
    ratios: dict[str, float | None] = {}
    for kind in KINDS:
        known = a.get(kind) and b.get(kind) is not None and (alike or kind != "seconds")
        ratios[kind] = b[kind] / a[kind] if known else None
    return ratios


def _of_other_calls(results: Sequence[SettingResult]) -> list[str]:
    """A line for each intervention if the seconds of others were measured in another call."""
    lines = []
    costed = [r for r in results if cost_of(r)]
    for one in costed:
        if is_intervention(one):
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
