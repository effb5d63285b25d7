"""An InterventionSet of examples in memory, and modules that learn from it."""

from __future__ import annotations

from typing import Any

import torch

from icltool.components.learners.interventions.answers import features_of
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.module import InterventionModule
from icltool.components.learners.live.options import LiveOptions
from icltool.components.learners.live.vectors import LiveVectors
from icltool.contracts import InterventionSet, Prompt
from icltool.testing import make_intervention_set as intervention_set

__all__ = ["SMALL", "batch_and_logits", "intervention_set", "module_of"]

SMALL: dict[str, Any] = {"shots": 2, "epochs": 2, "batch_size": 4, "accumulate": 1, "lr": 1e-2}


def module_of(data: InterventionSet, **options: Any) -> InterventionModule:
    chosen = LiveOptions(**{**SMALL, **options})
    torch.manual_seed(0)
    return InterventionModule(LiveVectors(data.model, chosen), data, Draws(data, 12, 0), chosen, 0)  # type: ignore[arg-type]


def batch_and_logits(data: InterventionSet, prompts: list[Prompt]) -> Any:
    model: Any = data.model
    batch = model.answer_batch(prompts, features_of(data, prompts))
    return batch, model.answer_logits(batch)
