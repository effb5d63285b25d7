"""A SteeringSet of examples in memory, and modules that learn from it."""

from __future__ import annotations

from typing import Any

import torch

from icltool.components.learners.live.options import LiveOptions
from icltool.components.learners.live.vectors import LiveVectors
from icltool.components.learners.steering.answers import features_of
from icltool.components.learners.steering.draws import Draws
from icltool.components.learners.steering.module import SteeringModule
from icltool.contracts import Prompt, SteeringSet
from icltool.testing import make_steering_set as steering_set

__all__ = ["SMALL", "batch_and_logits", "module_of", "steering_set"]

SMALL: dict[str, Any] = {"shots": 2, "epochs": 2, "batch_size": 4, "accumulate": 1, "lr": 1e-2}


def module_of(data: SteeringSet, **options: Any) -> SteeringModule:
    chosen = LiveOptions(**{**SMALL, **options})
    torch.manual_seed(0)
    return SteeringModule(LiveVectors(data.model, chosen), data, Draws(data, 12, 0), chosen, 0)  # type: ignore[arg-type]


def batch_and_logits(data: SteeringSet, prompts: list[Prompt]) -> Any:
    model: Any = data.model
    batch = model.answer_batch(prompts, features_of(data, prompts))
    return batch, model.answer_logits(batch)
