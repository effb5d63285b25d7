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
    """One split as a reader gives it: its name ("train" is the index set, "validation" holds the queries, and "development",
    which not all have, what the best weights of a training are chosen by), how many examples it has (for progress), and a
    function that yields them in a fixed order."""

    name: str
    count: int
    examples: Iterator[Example]


@dataclass(frozen=True)
class ReadReport:
    """What a reader checked: the files it read, and remarks worth a line on the screen (unofficial counts, say)."""

    files: tuple[Path, ...]
    remarks: tuple[str, ...] = field(default=())


@runtime_checkable
class DatasetReader(Protocol):
    """Reads one data set. `tasks` are the tasks it serves, the default first."""

    name: str
    tasks: tuple[str, ...]

    def check(self, root: Path | None, task: str, verify: bool) -> ReadReport:
        """Looks at everything that `read` will need before anything is written.

        `root` is the folder given by the user, or None when the data set makes its own files or knows its folder from
        an environment variable. `verify` opens every image; otherwise a sample.
        Raises DataError that names the file and how to get it.
        """
        ...

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """The splits, "train" first. A reader that makes its own files writes them under
        `workspace / "datasets" / self.name / "source"`."""
        ...


@runtime_checkable
class NamesMetrics(Protocol):
    """Ability of a reader whose data set is judged by another metric than its task names."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """{task: metric}; a task that is not there has its own."""
        ...


@runtime_checkable
class MakesFiles(Protocol):
    """Ability of a reader that makes its own files."""

    def make(self, workspace: Path, progress: Progress) -> Path:
        """Makes them below `workspace / "datasets" / NAME / "source"` unless they are there; the root to read from."""
        ...


@runtime_checkable
class NamedAfterFiles(Protocol):
    """Ability of a reader of the user's own files: what they are, the data set is called, unless the user names it."""

    def named_after(self, root: Path | None) -> str:
        """A name for the data set of these files; "" for the reader's own. DataError where nothing is given."""
        ...


@runtime_checkable
class TasksDependOnFiles(Protocol):
    """Ability of a reader of the user's own files: which of its tasks it serves depends on what they hold.

    Asked for all tasks, icltool leaves out those that `check` refuses with a DataError, if any passes.
    """

    tasks_depend_on_files: bool


@runtime_checkable
class ReadsDeclaredTasks(Protocol):
    """Ability of a reader of tables: it reads tasks that it has never heard of, by what they say of their fields."""

    def declare(self, task: Task) -> None:
        """From now on the reader knows this task, and is asked for it by its name."""
        ...


@runtime_checkable
class SupportsVerification(Protocol):
    """Ability of a reader that shows progress while it opens every image."""

    def verify(self, root: Path | None, task: str, progress: Progress) -> ReadReport:
        """As `check` with `verify`."""
        ...
