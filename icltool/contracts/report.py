"""What a stage returns for the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class StageReport:
    """A title, one dictionary per table row, notes, the path of the main artefact, and the notes that only
    --verbose prints."""

    title: str
    table_rows: tuple[Mapping[str, object], ...]
    path: Path | None = None
    remarks: tuple[str, ...] = field(default=())
    details: tuple[str, ...] = field(default=())

    def rows(self) -> list[dict[str, object]]:
        return [dict(row) for row in self.table_rows]

    def lines(self) -> list[str]:
        return list(self.remarks)
