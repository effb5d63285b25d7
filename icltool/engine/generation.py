"""The generation options of a call: the user's, else the model's defaults, else the task's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icltool.contracts import GenerationOptions, HasGenerationDefaults, Task


def generation_options(options: Mapping[str, Any], task: Task, model: object | None) -> GenerationOptions:
    """`options` are the fields of GenerationOptions that the user set. `model` may be anything; only HasGenerationDefaults
    counts."""
    own: Mapping[str, Any] = model.generation_defaults(task.name) if isinstance(model, HasGenerationDefaults) else {}
    tasks = {
        "max_new_tokens": task.max_new_tokens,
        "num_beams": task.num_beams,
        "length_penalty": task.length_penalty,
    }
    if options.get("temperature"):
        own = {**own, "num_beams": 1}  # sampling does not search
    return GenerationOptions(**{**tasks, **own, **options})
