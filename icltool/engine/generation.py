"""How answers are searched for: what the user says, else the model's own way, else the task's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icltool.contracts import GenerationOptions, HasGenerationDefaults, Task


def generation_options(options: Mapping[str, Any], task: Task, model: object | None) -> GenerationOptions:
    """`given` are fields of GenerationOptions that the user named. A model that answers with none of its own is None."""
    own: Mapping[str, Any] = model.generation_defaults(task.name) if isinstance(model, HasGenerationDefaults) else {}
    tasks = {
        "max_new_tokens": task.max_new_tokens,
        "num_beams": task.num_beams,
        "length_penalty": task.length_penalty,
    }
    return GenerationOptions(**{**tasks, **own, **options})
