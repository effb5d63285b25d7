"""Results as a Markdown table."""

from __future__ import annotations

import re
from collections.abc import Sequence

from icltool.results.grid import EMPTY, result_grid
from icltool.store.evaluations import SettingResult

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")


def results_markdown(results: Sequence[SettingResult], notes: Sequence[str] = ()) -> str:
    """Methods by shots with 95 % intervals, the best of each column bold, as a pipe table, and notes as a list below; ends with
    a newline."""
    grid = result_grid(results)
    rows = [grid.header, ["---" if i < len(grid.header) - len(grid.shots) else "---:" for i in range(len(grid.header))]]
    for row in grid.rows:
        figures = []
        for shots in grid.shots:
            cell = row.cells.get(shots)
            text = EMPTY if cell is None else cell.text.replace("[", r"\[").replace("]", r"\]")
            figures.append(f"**{text}**" if cell is not None and cell.best else text)
        rows.append([*(escape(label) for label in grid.labels(row)), *figures])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    below = ["", *(f"- {escape(note)}" for note in notes)] if notes else []
    return "\n".join([*lines, "", escape(grid.caption), *below, ""])


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
