"""Tables on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from icltool.contracts.records import QueryResult
from icltool.report.grid import EMPTY, result_grid
from icltool.store.evaluations import SettingResult

if TYPE_CHECKING:
    from rich.table import Table


def result_table(results: Sequence[SettingResult], title: str | None = None) -> Table:
    """Methods by shots: mean and 95 % interval, the best of each column bold."""
    from rich.table import Table
    from rich.text import Text

    grid = result_grid(results)
    table = Table(title=title, caption=grid.caption)
    texts = len(grid.header) - len(grid.shots)
    for position, name in enumerate(grid.header):
        table.add_column(name, justify="left" if position < texts else "right", no_wrap=position < texts)
    for row in grid.rows:
        figures = []
        for shots in grid.shots:
            cell = row.cells.get(shots)
            figures.append(Text(EMPTY) if cell is None else Text(cell.text, style="bold" if cell.best else ""))
        table.add_row(*(Text(label) for label in grid.labels(row)), *figures)
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
