"""A line of what `icltool doctor` tells, and the form that its JSON has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: item, value, note: texts; status: "ok", "missing", "problem", or "-" where nothing is wrong either way. `note` says what to
#: do. Some rows have `data` as well, what the value says as numbers, texts and lists, for programs.
Row = dict[str, Any]


def row(item: str, value: object, status: str = "ok", note: str = "", data: Mapping[str, Any] | None = None) -> Row:
    """One line of a section."""
    found: Row = {"item": item, "value": str(value), "status": status, "note": note}
    return found if data is None else {**found, "data": dict(data)}
