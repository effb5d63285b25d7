"""One training of any kind: what decides its result, and how it runs."""

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
    """A training. `identity` is all that decides its result, JSON values; `variant` tells the trainings of one learner, data
    set and task apart ("" if there is only one)."""

    identity: dict[str, object]
    variant: str

    @property
    def usage(self) -> str:
        """A line that says how to use the result, with {folder} in place of its folder; or ""."""
        ...

    def provenance(self) -> dict[str, object]:
        """The sources of the result, for its record and its card; JSON values."""
        ...

    def train(self, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Reads the data and trains. Raises what the learner raises."""
        ...


def common_identity(
    config: TrainConfig, learner: object, options: Mapping[str, object], dataset: PreparedDataset
) -> dict[str, object]:
    """The part of its identity that every training has; `options` are those of a learner without an identity of its own."""
    return {
        "learner": config.learner,
        "options": learner.identity() if isinstance(learner, HasIdentity) else options,
        "seed": config.seed,
        "dataset": dataset.name,
        "task": dataset.task,
        "dataset_fingerprint": dataset.fingerprint,
    }


def from_model(identity: Mapping[str, object], learner: str, model: str, **more: object) -> dict[str, object]:
    """The provenance of a trained model: its identity without options and seed, and the packages of learner and model."""
    from icltool.config.identity import makers

    path = identity.get("model_path")
    made_by = makers((("learners", learner), ("models", model)), {"models": path if isinstance(path, str) else None})
    return learned(identity, made_by, **more)
