"""Where a model runs, as far as its adapter says (`RunsOnDevice`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from icltool.contracts.model import RunsOnDevice

if TYPE_CHECKING:
    import torch


def device_of(model: object) -> torch.device | None:
    """The torch.device that takes the model's inputs; None for a model that does not say."""
    return model.device if isinstance(model, RunsOnDevice) else None


def device_type(model: object) -> str:
    """ "cpu", "cuda" …; "cpu" for a model that does not say."""
    return str(getattr(device_of(model), "type", "cpu"))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
