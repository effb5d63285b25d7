"""What `icltool generate` prints: how much better the model does with the demonstrations that were found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from icltool.contracts import Float64Array, StageReport

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class MeanScores:
    """Means over all anchors of a scorer's value: without demonstrations, and the gain of each beam; None for a beam that no
    anchor has."""

    base: float
    gains: tuple[float | None, ...]

    @classmethod
    def of(cls, values: Float64Array, base: Float64Array) -> MeanScores:
        """`values` float64 [Q, B] of the beams, NaN where an anchor has fewer; `base` float64 [Q]."""
        gains = (values - base[:, None]).T
        return cls(_mean(base) or 0.0, tuple(_mean(beam) for beam in gains))

    def rows(self) -> list[tuple[str, str, str]]:
        """(demonstrations, mean score, mean gain) as texts; of the beams the first and the last."""
        digits = _digits([self.base, *(gain for gain in self.gains if gain is not None)])
        rows = [("none", f"{self.base:.{digits}f}", "")]
        names = {0: "first beam"} | (
            {len(self.gains) - 1: f"last of {len(self.gains)} beams"} if self.gains[1:] else {}
        )
        for beam, name in names.items():
            gain = self.gains[beam]
            if gain is None:
                rows.append((name, "-", "-"))
            else:
                rows.append((name, f"{self.base + gain:.{digits}f}", f"{gain:+.{digits}f}"))
        return rows


@dataclass(frozen=True)
class SequencesReport(StageReport):
    """The report of sequences, with their mean scores for people; `score` says in words what the scorer computes."""

    scores: MeanScores | None = None
    score: str = ""

    def table(self, verbose: bool = False) -> Group | None:
        """Title, amounts and the mean score with and without demonstrations."""
        if self.scores is None:
            return None
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        [facts] = self.table_rows
        amounts = f"{facts['anchors']:,} anchors ({facts['searched now']:,} searched now)"
        pools = f"{facts['shots']} demonstrations each, of {facts['candidates']} candidates"
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("demonstrations")
        table.add_column("mean score", justify="right")
        table.add_column("gain over none", justify="right")
        for row in self.scores.rows():
            table.add_row(*row)
        return Group(Text(self.title), Text(f"{amounts}, {pools}"), Text(f"score: {self.score}"), table)


def _mean(values: Float64Array) -> float | None:
    """The mean of the finite values, with 0 for -0; None if there are none."""
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 10) + 0.0 if len(known) else None


def _digits(values: list[float]) -> int:
    """Decimals that give the largest value four significant digits."""
    largest = max(map(abs, values), default=0.0)
    return min(8, max(1, 3 - math.floor(math.log10(largest)))) if largest else 1
