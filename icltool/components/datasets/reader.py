"""What all readers of files share."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from icltool.components.datasets.columns import lacks_text
from icltool.components.datasets.official import counted
from icltool.components.tasks import task_named
from icltool.contracts import Example, PreparedSplit, Progress, ReadReport, Task


class FileReader(abc.ABC):
    """A reader with one check of its files, `look`, for a sample of the images or for all of them."""

    @abc.abstractmethod
    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader."""

    @abc.abstractmethod
    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        """As DatasetReader's `check`; `progress` shows the progress through all images, None for a sample."""

    def check(self, root: Path | None, task: str, verify: bool) -> ReadReport:
        """See DatasetReader."""
        return self.look(root, task, verify, None)

    def verify(self, root: Path | None, task: str, progress: Progress) -> ReadReport:
        """`check` that opens every image and shows progress."""
        return self.look(root, task, True, progress)


class TableReader(FileReader):
    """A reader whose rows serve every task that the columns suffice for, including declared tasks."""

    def __init__(self) -> None:
        self._declared: dict[str, Task] = {}
        self._defined: dict[str, Task] = {}

    def declare(self, task: Task) -> None:
        """See ReadsDeclaredTasks."""
        self._declared[task.name] = task

    def task_definition(self, task: str) -> Task:
        """The task of this name, built in or declared. Raises as `task_named`."""
        return self._defined.get(task) or self._declared.get(task) or task_named(task)

    def definition(self, task: str) -> Task | None:
        """See DefinesTasks."""
        return self._defined.get(task)

    def define_without_text(self, task: str, present: Sequence[str], named: Mapping[str, str | None]) -> None:
        """Defines the task anew if the table with the columns `present` has no text for it, and the task can do without."""
        definition = self.task_definition(task)
        if definition.image_prompts and lacks_text(present, definition, named):
            self._defined[task] = definition.without_text()


def unofficial(where: str, count: int, noun: str, official: int) -> list[str]:
    """A remark if a split does not have the official number of examples (`noun`)."""
    return [] if count == official else [f"{where} has {counted(count, noun)}; the official split has {official:,}"]


def left_out(where: str, captions: int, images: int) -> tuple[str, ...]:
    """Remarks on empty captions and on images without captions, which are left out."""
    remarks = [f"{where}: {counted(captions, 'empty caption')} left out"] if captions else []
    remarks += [f"{where}: {counted(images, 'image')} without captions left out"] if images else []
    return tuple(remarks)


def captioned(
    identifier: int,
    image: str,
    image_id: int,
    captions: tuple[str, ...],
    group: str = "",
    style: str = "",
    aspects: Mapping[str, str] | None = None,
) -> Example:
    """The example of an image with captions: all are references, the first is also label and text."""
    first = captions[0]
    return Example(identifier, image, image_id, first, first, captions, group=group, style=style, aspects=aspects or {})
