"""One training, whatever is trained: what decides its result, and how it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from icltool.contracts import Progress, TrainingOutcome


class Job(Protocol):
    """A training that can be run. `identity` is all that decides its result, JSON values; `variant` names it among the
    trainings of one learner, data set and task ("" where nothing needs naming)."""

    identity: dict[str, Any]
    variant: str

    @property
    def usage(self) -> str:
        """A line that says what to do with the result, {folder} standing for where it is; "" where that is known."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Where the result comes from, for its record and its card; JSON values."""
        ...

    def train(self, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Reads what is needed and trains. Raises what the learner raises."""
        ...
