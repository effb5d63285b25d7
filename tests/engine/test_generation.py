"""Who decides how answers are searched for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from icltool.components.tasks import task_named
from icltool.contracts import GenerationOptions
from icltool.engine.generation import generation_options


class Plain:
    """A model without a way of its own."""


class Captioner:
    """A model that was published with beams of its own for captions."""

    def generation_defaults(self, task: str) -> Mapping[str, Any]:
        return {"num_beams": 5, "min_new_tokens": 8, "max_new_tokens": 30} if task == "caption" else {}


@pytest.mark.parametrize(
    ("model", "task", "options", "expected"),
    [
        (Plain(), "caption", {}, GenerationOptions(20)),
        (Plain(), "vqa", {"num_beams": 1}, GenerationOptions(5, 1)),
        (Captioner(), "caption", {}, GenerationOptions(30, 5, 0.0, 8)),
        (Captioner(), "caption", {"min_new_tokens": 0, "length_penalty": 1.0}, GenerationOptions(30, 5, 1.0, 0)),
        (Captioner(), "inference", {}, GenerationOptions(30)),
        (None, "caption", {"repetition_penalty": 1.5, "no_repeat_ngram": 3}, GenerationOptions(20, 3, 0.0, 0, 1.5, 3)),
    ],
)
def test_the_user_comes_before_the_model_and_the_model_before_the_task(
    model: Any, task: str, options: dict[str, Any], expected: GenerationOptions
) -> None:
    assert generation_options(options, task_named(task), model) == expected
