"""What a stage returns for the screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StageReport:
    """A title, one dictionary per table row, remarks, and the main artefact that was written or found up to date."""

    title: str
    table_rows: tuple[dict[str, Any], ...]
    path: Path | None = None
    remarks: tuple[str, ...] = field(default=())

    def rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self.table_rows]

    def lines(self) -> list[str]:
        return list(self.remarks)
