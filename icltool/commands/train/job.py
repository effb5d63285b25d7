"""One training, whatever is trained: what decides its result, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from icltool.commands.train.options import TrainConfig
from icltool.contracts import Progress, TrainingOutcome
from icltool.contracts.abilities import HasIdentity
from icltool.store.prepared import PreparedDataset
from icltool.store.provenance import learned


class Job(Protocol):
    """A training that can be run. `identity` is all that decides its result, JSON values; `variant` names it among the
    trainings of one learner, data set and task ("" where nothing needs naming)."""

    identity: dict[str, object]
    variant: str

    @property
    def usage(self) -> str:
        """A line that says what to do with the result, {folder} standing for where it is; "" where that is known."""
        ...

    def provenance(self) -> dict[str, object]:
        """Where the result comes from, for its record and its card; JSON values."""
        ...

    def train(self, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Reads what is needed and trains. Raises what the learner raises."""
        ...


def common_identity(
    config: TrainConfig, learner: object, options: Mapping[str, object], dataset: PreparedDataset
) -> dict[str, object]:
    """What of its identity every training has; `options` are those of a learner that does not tell its own."""
    return {
        "learner": config.learner,
        "options": learner.identity() if isinstance(learner, HasIdentity) else options,
        "seed": config.seed,
        "dataset": dataset.name,
        "task": dataset.task,
        "dataset_fingerprint": dataset.fingerprint,
    }


def from_model(identity: Mapping[str, object], learner: str, model: str, **more: object) -> dict[str, object]:
    """The provenance of what a learner made of a model: its identity but for options and seed, and who brings both."""
    from icltool.config.identity import makers

    path = identity.get("model_path")
    made_by = makers((("learners", learner), ("models", model)), {"models": path if isinstance(path, str) else None})
    return learned(identity, made_by, **more)
