"""The table that the benchmark prints, figures beside their goals."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.engine.compare import Comparison, device_name
from tests.benchmarks.engine.models import parameters

#: Tokens computed over tokens of the bound, at most.
TOKENS = 1.1
#: Engine over naive way, at least; share of the matrix rate on a GPU, at least.
SPEEDUP = {"cpu": 7.0, "cuda": 10.0}
UTILISATION = 0.45
#: Largest difference from the naive way: of values in float32, relative in bfloat16.
VALUE, RELATIVE = 1e-5, 2e-2


def show(comparison: Comparison, adapter: Any) -> None:
    """Prints one construct order."""
    s, c, device = comparison.setting, comparison, adapter.device
    table = Table(title=f"construct order {s.order}, {s.shots} shots, {s.beams} beams, batches of {s.batch_size}")
    for name in ("", "naive", "features cached", "engine", "goal"):
        table.add_column(name, justify="left" if not name else "right")
    sides = (c.naive, c.cached, c.engine)
    table.add_row("prompts", *(f"{x.prompts:,}" if x else "" for x in sides), "")
    table.add_row("seconds", *(f"{x.seconds:.2f}" if x else "" for x in sides), "")
    table.add_row("prompts per second", *(f"{x.rate:.2f}" if x else "" for x in sides), "")
    ratios = (1.0, c.cached.rate / c.naive.rate if c.cached else None, c.speedup)
    table.add_row(
        "times naive",
        *("" if x is None else f"{x:.2f}" for x in ratios),
        _goal(c.speedup, SPEEDUP["cpu" if device.type == "cpu" else "cuda"], least=True),
    )
    if device.type == "cpu":
        table.add_row("times naive, in CPU time", "1.00", "", f"{c.cpu_speedup:.2f}", "")
    exact = adapter.dtype == torch.float32
    d = c.differences
    table.add_row("values compared", "", "", f"{d.compared:,}", "")
    table.add_row("largest value difference", "", "", f"{d.value:.1e}", _goal(d.value, VALUE) if exact else "")
    table.add_row("largest score difference", "", "", f"{d.score:.1e}", _goal(d.score, VALUE) if exact else "")
    table.add_row("relative to the value", "", "", f"{d.relative:.1e}", "" if exact else _goal(d.relative, RELATIVE))
    beams = "the same" if d.same_beams else "others"
    table.add_row("beams", "", "", beams, ("met" if d.same_beams else "missed") if exact else "")
    table.add_row("tokens scored", "", "", f"{c.scored:,}", "")
    table.add_row("lower bound, by anchor", "", "", f"{c.bound:,}", "")
    table.add_row("lower bound, all anchors", "", "", f"{c.bound_joint:,}", "")
    if c.computed is not None:
        table.add_row("tokens computed", "", "", f"{c.computed:,}", "")
        share = c.computed / c.bound
        table.add_row("  over the bound by anchor", "", "", f"{share:.3f}", _goal(share, TOKENS))
    if c.padded is not None:
        table.add_row("tokens with padding", "", "", f"{c.padded:,}", "")
    once = "met" if c.engine.encoded == c.images else "missed"
    table.add_row(
        f"image encodings ({c.images} images)", *(f"{x.encoded:,}" if x else "" for x in sides), f"each once: {once}"
    )
    cached = f"{c.useful['cached']:.1%}" if "cached" in c.useful else ""
    table.add_row(
        f"useful part of {c.rate / 1e12:.3g} TFLOP/s",
        f"{c.useful['naive']:.1%}",
        cached,
        f"{c.useful['engine']:.1%}",
        _goal(c.useful["engine"], UTILISATION, least=True) if device.type == "cuda" else "",
    )
    table.add_row("part in its own operations", f"{c.own:.1%}", "", "", "")
    table.add_row("operations over the least", f"{c.own / c.useful['naive']:.2f}", "", "", "")
    table.add_row("peak memory, MiB", *(f"{x.peak_bytes / 2**20:,.0f}" if x else "" for x in sides), "")
    console = Console(width=110)
    console.print(
        f"{adapter.name}: {parameters(adapter.model) / 1e6:,.1f} M parameters, {adapter.dtype}, {device_name(device)}, "
        f"{torch.get_num_threads()} threads"
    )
    console.print(table)


def _goal(value: float, goal: float, least: bool = False) -> str:
    met = value >= goal if least else value <= goal
    return f"{'>=' if least else '<='} {goal:g}: {'met' if met else 'missed'}"
