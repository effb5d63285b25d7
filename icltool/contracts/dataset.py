"""Dataset readers turn official files into examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from icltool.contracts.progress import Progress
from icltool.contracts.records import Example
from icltool.contracts.task import Task


@dataclass(frozen=True)
class PreparedSplit:
    """One split: its name ("train" is the index set, "validation" holds the queries, and the optional "development" selects the
    best weights of a training), the number of its examples (for progress), and an iterator over them in a fixed order."""

    name: str
    count: int
    examples: Iterator[Example]


@dataclass(frozen=True)
class ReadReport:
    """What a reader checked: the files it read, and notes for the user (for example on unofficial counts)."""

    files: tuple[Path, ...]
    remarks: tuple[str, ...] = field(default=())


@runtime_checkable
class DatasetReader(Protocol):
    """Reads one data set. `tasks` are the tasks it serves, the default first."""

    name: str
    tasks: tuple[str, ...]

    def check(self, root: Path | None, task: str, verify: bool) -> ReadReport:
        """Checks everything that `read` needs, before anything is written.

        `root` is the user's folder, or None if the data set generates its own files or an environment variable names its
        folder. With `verify` every image is opened, otherwise a sample.
        Raises DataError that names the file and how to get it.
        """
        ...

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """The splits, "train" first. A reader that generates its own files writes them under
        `workspace / "datasets" / self.name / "source"`."""
        ...


@runtime_checkable
class NamesMetrics(Protocol):
    """Ability of a reader whose data set has another default metric than its task."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """{task: metric}; other tasks keep their own metric."""
        ...


@runtime_checkable
class MakesFiles(Protocol):
    """Ability of a reader that generates its own files."""

    def make(self, workspace: Path, progress: Progress) -> Path:
        """Generates them below `workspace / "datasets" / NAME / "source"` unless they exist; returns the root to read from."""
        ...


@runtime_checkable
class NamedAfterFiles(Protocol):
    """Ability of a reader of the user's own files: unless the user names the data set, it is named after them."""

    def named_after(self, root: Path | None) -> str:
        """A name for the data set of these files; "" for the reader's own name. Raises DataError if no file is named."""
        ...


@runtime_checkable
class TasksDependOnFiles(Protocol):
    """Ability of a reader of the user's own files: their content determines which of its tasks it supports.

    When all tasks are prepared, those for which `check` raises DataError are left out, unless it raises for all.
    """

    tasks_depend_on_files: bool


@runtime_checkable
class ReadsDeclaredTasks(Protocol):
    """Ability of a reader of tables: it reads any task whose definition names its fields."""

    def declare(self, task: Task) -> None:
        """Registers the task; later calls refer to it by name."""
        ...


@runtime_checkable
class DefinesTasks(Protocol):
    """Ability of a reader that defines a task in its own way: a classification of images alone."""

    def definition(self, task: str) -> Task | None:
        """Once `check` has been called: the definition, which is kept with the data set; None for that of the registered
        task."""
        ...


@runtime_checkable
class SupportsVerification(Protocol):
    """Ability of a reader that shows progress while it opens every image."""

    def verify(self, root: Path | None, task: str, progress: Progress) -> ReadReport:
        """As `check` with `verify`."""
        ...
