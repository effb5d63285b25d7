"""The tasks that icltool brings along, one TOML file each."""

from __future__ import annotations

from functools import cache

from icltool.contracts import Task, TaskFormat, packaged_task

#: In the order in which they are listed.
BUILT_IN = ("caption", "vqa", "classification", "style", "inference", "inference-choice")


@cache
def task_named(name: str) -> Task:
    """The built-in task of this name; KeyError for any other."""
    if name not in BUILT_IN:
        raise KeyError(name)
    return packaged_task(__name__, f"{name}.toml")


def caption_tasks() -> tuple[str, ...]:
    """The names of those whose answers are sentences about an image, which the metrics of captions are made for."""
    tasks = map(task_named, BUILT_IN)
    return tuple(task.name for task in tasks if task.sentences and not task.ranked)


def formats(*templates: str) -> dict[str, TaskFormat]:
    """How each of them is asked by the first of these templates that it knows, by name; those that know none are left out."""
    tasks = map(task_named, BUILT_IN)
    return {task.name: task.prompt(templates) for task in tasks if set(templates) & set(task.prompts)}
