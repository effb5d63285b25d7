"""Options of the commands that rank choices: by what, and how."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from icltool.config.base import HIDDEN, StageConfig
from icltool.contracts import Task
from icltool.contracts.json import Json

_ANSWERS: dict[str, Any] = {**HIDDEN, "group": "Generation"}


class ChoiceConfig(StageConfig):
    """How the answer is chosen among the choices of a question. An identity takes the options from `choice_identity`, so that
    what was made before there was a choice keeps its own."""

    rank_by: Literal["text", "letter", "generate"] | None = Field(
        default=None,
        description="tasks with choices: answer with the most probable choice by its text, or by its letter with the choices "
        "listed in the prompt, or have the model write a letter",
        json_schema_extra={**_ANSWERS, "default": "that of the task: text"},
    )
    rank_norm: Literal["mean", "sum"] | None = Field(
        default=None,
        description="compare choices by the mean log-probability of their tokens, or by the sum",
        json_schema_extra={**_ANSWERS, "default": "that of the task: mean"},
    )
    letter_rule: (
        Literal["strict", "scienceqa", "llava-scienceqa", "lmms-scienceqa", "lmms-seed", "mmmu", "lmms-mmmu"] | None
    ) = Field(
        default=None,
        description="with --rank-by generate: how the letter is read in the answer, strictly or by the rule of a published "
        "evaluation",
        json_schema_extra={**_ANSWERS, "default": "that of the task: strict"},
    )

    def answered(self, task: Task) -> Task:
        """The task with its answers chosen in the way of these options. Raises ConfigError for a task that does not rank
        choices, or has no prompts that list them."""
        return task.ranked_by(self.rank_by, self.rank_norm, self.letter_rule)


def choice_identity(task: Task) -> dict[str, Json]:
    """How the answers to the task are chosen, as far as it is not the mean over the tokens of each choice's text."""
    usual = {"rank_by": "text", "rank_norm": "mean", "letter_rule": "strict"}
    return {key: value for key, usually in usual.items() if (value := getattr(task, key)) != usually}
