"""Results as a LaTeX table."""

from __future__ import annotations

from collections.abc import Sequence

from icltool.results.grid import result_grid
from icltool.store.evaluations import SettingResult

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "–": "--",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def results_latex(results: Sequence[SettingResult], notes: Sequence[str] = ()) -> str:
    """Methods by shots with 95 % intervals, the best of each column bold, as a `tabular` with rules of the package
    booktabs, and notes as comments below; ends with a newline."""
    grid = result_grid(results)
    texts = len(grid.header) - len(grid.shots)
    lines = [
        f"% {' '.join(grid.caption.split())}; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{{'l' * texts}{'r' * len(grid.shots)}}}",
        r"\toprule",
        " & ".join(escape(name) for name in grid.header) + r" \\",
        r"\midrule",
    ]
    for row in grid.rows:
        figures = []
        for shots in grid.shots:
            cell = row.cells.get(shots)
            text = "--" if cell is None else escape(cell.text)
            figures.append(f"\\textbf{{{text}}}" if cell is not None and cell.best else text)
        lines.append(" & ".join([*(escape(label) for label in grid.labels(row)), *figures]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in notes), ""])


def escape(text: str) -> str:
    """Text that LaTeX sets as it is, on one line."""
    return " ".join(text.split()).translate(_ESCAPES)
