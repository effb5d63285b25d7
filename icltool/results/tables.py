"""Tables on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from icltool.contracts.records import QueryResult
from icltool.results.grid import DIGITS, EMPTY, p_text, result_grid
from icltool.results.intervals import interval_of
from icltool.store.evaluations import SettingResult

if TYPE_CHECKING:
    from rich.table import Table


#: Names longer than this go on in a further line, so that figures have room.
NAME_WIDTH = 24


def name_column(table: Table, heading: str, names: Iterable[str]) -> None:
    """Adds the column of these names: whole where they are short, folded where one is longer than NAME_WIDTH."""
    long = max(map(len, names), default=0) > NAME_WIDTH
    table.add_column(heading, no_wrap=not long, overflow="fold", max_width=NAME_WIDTH)


def result_table(results: Sequence[SettingResult], title: str | None = None) -> Table:
    """Methods by shots: mean and 95 % interval, the best of each column bold."""
    from rich.table import Table
    from rich.text import Text

    grid = result_grid(results)
    table = Table(title=None if title is None else Text(title, style="table.title"), caption=grid.caption)
    texts = len(grid.header) - len(grid.shots)
    for position, name in enumerate(grid.header):
        if position < texts:
            name_column(table, name, (grid.labels(row)[position] for row in grid.rows))
        else:
            table.add_column(name, justify="right", overflow="fold")
    for row in grid.rows:
        figures = []
        for shots in grid.shots:
            cell = row.cells.get(shots)
            figures.append(Text(EMPTY) if cell is None else Text(cell.text, style="bold" if cell.best else ""))
        table.add_row(*(Text(label) for label in grid.labels(row)), *figures)
    return table


def difference_table(differences: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """Pairs of methods by shots for one metric: difference, 95 % interval, and the two-sided share of draws, bold where the
    interval leaves out 0. Entries have shots, a, b, metric, mean, low, high and p; `shots` are those of b where a has none."""
    from rich.table import Table
    from rich.text import Text

    chosen = [d for d in differences if d["metric"] == metric]
    shots = sorted({d["shots"] for d in chosen})
    others = sorted({d["metric"] for d in differences} - {metric})
    more = f"; {', '.join(others)}: in results.json" if others else ""
    alike = [d for d in chosen if "a_shots" not in d]
    first = {d["a"] for d in alike}
    if len(first) == 1 and len({d["b"] for d in alike}) > 1:
        more = f"; all against {next(iter(first))}, which was named first{more}"
    table = Table(caption=f"{metric}: differences on the same queries [95 % interval], p by bootstrap{more}")
    name_column(table, "methods", (f"{d['a']} - {d['b']}" for d in chosen))
    for k in shots:
        table.add_column(f"{k}-shot", justify="right", overflow="fold")
    cells: dict[tuple[str, str], dict[int, Text]] = {}
    for d in chosen:
        mean, low, high = interval_of(d)
        text = f"{mean:+.{DIGITS}f} [{low:+.{DIGITS}f}, {high:+.{DIGITS}f}] p {p_text(d['p'])}"
        style = "bold" if low > 0 or high < 0 else ""
        cells.setdefault((d["a"], d["b"]), {})[d["shots"]] = Text(text, style=style)
    for (a, b), found in cells.items():
        table.add_row(Text(f"{a} - {b}"), *(found.get(k, Text(EMPTY)) for k in shots))
    return table


def breakdown_table(results: Sequence[SettingResult], column: str, metric: str) -> Table:
    """One metric's figure over the queries of each type, a row per setting, from `extra["by"][column]`."""
    from rich.table import Table
    from rich.text import Text

    tables = [(r, r.extra.get("by", {}).get(column, {})) for r in results]
    values = sorted({value for _, found in tables for value in found})
    counts = {value: found[value]["queries"] for _, found in tables for value in found}
    table = Table(caption=f"{metric} by {column.replace('_', ' ')} (number of queries)")
    names = [f"{r.method} {r.shots}-shot" if r.shots else r.method for r, _ in tables]
    name_column(table, "method", names)
    for value in values:
        table.add_column(Text(f"{value} ({int(counts[value])})"), justify="right", overflow="fold")
    for name, (_, found) in zip(names, tables, strict=True):
        if found:
            figures = [found.get(value, {}).get(metric) for value in values]
            table.add_row(Text(name), *(EMPTY if f is None else f"{f:.{DIGITS}f}" for f in figures))
    return table


def sequences_table(results: Iterable[QueryResult], limit: int = 10, title: str | None = None) -> Table:
    """The best sequence of the first `limit` queries: query id, ICD ids in prompt order, score, gain over no
    demonstrations."""
    from rich.table import Table

    table = Table(title=title)
    table.add_column("query", justify="right")
    table.add_column("ICDs in prompt order")
    table.add_column("score", justify="right")
    table.add_column("gain", justify="right")
    table.add_column("beams", justify="right")
    for result in islice(results, limit):
        ids = " ".join(str(int(icd)) for icd in result.icd_ids[0])
        gain = float(result.values[0]) - result.base_value
        table.add_row(str(result.query_id), ids, f"{result.scores[0]:.4f}", f"{gain:+.4f}", str(len(result.icd_ids)))
    return table
