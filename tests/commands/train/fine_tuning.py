"""Small trainings of the learner `captioner` through its stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icltool.commands.train import run as train
from icltool.commands.train.options import TrainConfig
from icltool.contracts import StageReport
from icltool.execution.progress import for_terminal

QUIET = for_terminal(quiet=True)
#: Seconds, and enough for other answers than before.
SMALL: dict[str, Any] = {
    "epochs": 3,
    "validate_every": 3,
    "batch_size": 8,
    "max_train_size": 16,
    "lr": 1e-2,
    "schedule": "constant",
    "warmup_lr": 0.0,
    "freeze": "none",
    "image_size": 32,
    "crop": "none",
    "captions": "first",
    "select": "loss",
    "num_beams": 2,
    "max_new_tokens": 6,
    "min_new_tokens": 0,
    "reward_workers": 0,
}
#: How answers are searched for by all methods of a test.
SEARCH: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 6, "min_new_tokens": 0}


def train_config(workspace: Path, options: dict[str, Any] | None = None, **values: Any) -> TrainConfig:
    """`options` are put over SMALL."""
    start: dict[str, Any] = {"learner": "captioner", "model": "tiny-blip2", "device": "cpu", "task": "caption"}
    start["trainer"] = {"accelerator": "cpu"}
    return TrainConfig(workspace=workspace, options={**SMALL, **(options or {})}, **{**start, **values})


def fine_tuned(workspace: Path, options: dict[str, Any] | None = None, **values: Any) -> StageReport:
    return train.run(train_config(workspace, options, **values), QUIET)
