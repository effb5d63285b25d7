"""Dataset readers turn official files into examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        """The splits, "train" first (see HasQueriesOnly). A reader that generates its own files writes them under
        `workspace / "datasets" / self.name / "source"`."""
        ...


@runtime_checkable
class NamesMetrics(Protocol):
    """Ability of a reader whose data set has other default metrics than its task."""

    @property
    def metrics(self) -> Mapping[str, str | Sequence[str]]:
        """{task: metric, or several of them, the main one first}; other tasks keep their own."""
        ...


@dataclass(frozen=True)
class SourceFile:
    """A file or folder that a data set consists of: its name as published, its size in words ("1.2 GB", "" if unknown), and
    what it holds."""

    name: str
    size: str = ""
    holds: str = ""

    def __str__(self) -> str:
        details = ", ".join(filter(None, (self.holds, self.size)))
        return f"{self.name} ({details})" if details else self.name


@dataclass(frozen=True)
class Source:
    """Where the files of a published data set come from: who publishes them (the address of a page), under which licence, and
    which they are."""

    site: str
    licence: str
    files: tuple[SourceFile, ...]

    def hint(self, *names: str) -> str:
        """How to get the files of these names (none: all), for an error message."""
        listed = [file for file in self.files if not names or file.name in names] or list(self.files)
        return f"get {', '.join(map(str, listed))} from {self.site}; licence: {self.licence}"


@runtime_checkable
class HasSource(Protocol):
    """Ability of a reader of published files, as a class attribute: `icltool plugins show` names the source."""

    source: Source


@runtime_checkable
class HasQueriesOnly(Protocol):
    """Ability of a reader of queries alone: its first split is "validation", and demonstrations come from another data set."""

    queries_only: bool


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
