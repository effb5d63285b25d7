"""The device of a model, if its adapter reports it (`RunsOnDevice`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from icltool.contracts.model import RunsOnDevice

if TYPE_CHECKING:
    import torch


def device_of(model: object) -> torch.device | None:
    """The torch.device that takes the model's inputs; None if the adapter does not report it."""
    return model.device if isinstance(model, RunsOnDevice) else None


def device_type(model: object) -> str:
    """ "cpu", "cuda" …; "cpu" if the adapter does not report it."""
    return str(getattr(device_of(model), "type", "cpu"))


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
