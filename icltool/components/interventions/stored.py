"""The base of every intervention that is read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from icltool.components.interventions.files import Stored, again, check_base, read_intervention
from icltool.contracts import Model, Options
from icltool.errors import StoreError


class StoredOptions(Options):
    """The file of an intervention, and its method."""

    method: str = Field(description="method that the file must belong to")
    file: Path = Field(description="file that `icltool train` wrote")


class StoredIntervention:
    """Intervention without `everywhere` and `applied`. Raises StoreError for a file of another method."""

    options_model = StoredOptions

    def __init__(self, options: StoredOptions) -> None:
        stored = read_intervention(options.file)
        expect_method(stored, options.method)
        self.method, self.file, self.about = options.method, stored.path, stored.about
        self.parameters = stored.numbers
        self._stored = stored

    def identity(self) -> dict[str, Any]:
        """See Intervention."""
        return {"intervention": self.method, "content": self._stored.digest}

    def check(self, model: Model) -> None:
        """See Intervention."""
        check_base(self._stored, model)


def expect_method(stored: Stored, method: str) -> None:
    """Raises StoreError for a file of another method."""
    if stored.method != method:
        raise StoreError(
            f"{stored.path} was written by `icltool train {stored.method}`, not for method {method}",
            f"use --method {stored.method}, or {again(method)}",
        )
