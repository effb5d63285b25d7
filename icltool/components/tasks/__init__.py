"""The built-in tasks, one TOML file each."""

from __future__ import annotations

from functools import cache

from icltool.contracts import Task, TaskFormat, packaged_task

#: The order in which they are listed.
BUILT_IN = (
    "caption",
    "vqa",
    "classification",
    "style",
    "inference",
    "inference-choice",
    "multiple-choice",
    "open-answer",
)


@cache
def task_named(name: str) -> Task:
    """The built-in task of this name; KeyError for any other."""
    if name not in BUILT_IN:
        raise KeyError(name)
    return packaged_task(__name__, f"{name}.toml")


def as_registered(task: Task) -> bool:
    """Whether it is a built-in task that asks as its file says: not one of a data set or a file of the user's, nor one whose
    choices are written as letters."""
    return task.name in BUILT_IN and task.prompts == task_named(task.name).prompts


def caption_tasks() -> tuple[str, ...]:
    """The names of the tasks whose answers are sentences about an image, for which the caption metrics are meant."""
    tasks = map(task_named, BUILT_IN)
    return tuple(task.name for task in tasks if task.sentences and not task.ranked)


def formats(*templates: str) -> dict[str, TaskFormat]:
    """Task name -> the first of these templates that the task defines; tasks that define none are left out."""
    tasks = map(task_named, BUILT_IN)
    return {task.name: task.prompt(templates) for task in tasks if set(templates) & set(task.prompts)}
