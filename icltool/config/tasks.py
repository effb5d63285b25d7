"""Which task a name, or a prepared data set, means."""

from __future__ import annotations

from icltool.contracts import Task
from icltool.plugin.manager import component
from icltool.store.prepared import PreparedDataset


def named_task(name: str) -> Task:
    """The registered task of this name. Raises PluginError, with a suggestion, for any other."""
    task: Task = component("tasks", name)
    return task


def task_of(dataset: PreparedDataset) -> Task:
    """The task that the data set was prepared for: its own definition if it has one, else the registered task."""
    return dataset.declared or named_task(dataset.task)
