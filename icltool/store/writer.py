"""The writer's side of every artefact: lock, resume, journal, and the rewriting of the file when the run ends."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from icltool.errors import StoreError
from icltool.store.artefact import Header, check_identity, create_h5, open_h5, reading
from icltool.store.atomic import remove_leftovers, writing
from icltool.store.journal import Journal, journal_path, remove_journal
from icltool.store.locking import locked

if TYPE_CHECKING:
    import h5py

Self = TypeVar("Self", bound="JournaledWriter")


class JournaledWriter(abc.ABC):
    """Appends to an artefact so that a kill at any moment loses nothing once `append` has returned. Entering the context
    locks the artefact, and creates it if there is none, so that the file can be opened from then on. Appended records go to
    the journal; leaving the context, with or without an error, merges file and journal into a new file that replaces the
    old one, and removes the journal. A kill in between leaves both, and rows that are in both count once. With `overwrite`
    the old file and journal are replaced on entering.

    A journal without its file is removed, since the user removed the file to start again. Subclasses define how rows are
    loaded from file and journal, and how a file is filled.
    """

    def __init__(self, path: Path, header: Header, overwrite: bool) -> None:
        self.path = Path(path)
        self.header = header
        self._overwrite = overwrite
        self._journal: Journal | None = None
        self._open: contextlib.ExitStack | None = None

    @abc.abstractmethod
    def _load(self, file: h5py.File) -> None:
        """Registers the rows of the open file."""

    @abc.abstractmethod
    def _replay(self, journal: Journal) -> None:
        """Registers the records of the journal; they may repeat rows of the file."""

    @abc.abstractmethod
    def _fill(self, new: h5py.File, old: h5py.File | None, journal: Journal | None, check: Callable[[], None]) -> None:
        """Writes the rows of `old` (None for none) and `journal` into `new`; calls `check()` after each block."""

    @abc.abstractmethod
    def _is_complete(self) -> bool:
        """Whether everything expected is stored."""

    def __enter__(self: Self) -> Self:
        if self._open is not None:
            raise RuntimeError(f"{self.path} is already open for writing")
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.path))
            with writing(self.path):
                remove_leftovers(self.path)
                remove_leftovers(journal_path(self.path))
            if self._overwrite or not self.path.exists():
                self._start()
            else:
                self._resume()
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack = self._open
        if stack is None:
            return
        self._open = None
        with stack:
            try:
                self._compact()
            except StoreError:
                # nothing is lost: the journal holds it. An error that is already being raised is more important than
                # this one.
                if error is None:
                    raise
            finally:
                if self._journal is not None:
                    with contextlib.suppress(StoreError):
                        self._journal.close()
                    self._journal = None

    def _start(self) -> None:
        """Replaces whatever is there by an empty, valid file."""
        with create_h5(self.path) as (new, check):
            self.header.write(new, complete=self._is_complete())
            self._fill(new, None, None, check)
            check()
            remove_journal(journal_path(self.path))

    def _resume(self) -> None:
        file, header = open_h5(self.path, self.header.schema)
        with file, reading(self.path, header.schema):
            check_identity(self.path, header.identity(), self.header.identity())
            header.provenance.makers.check(self.path, self.header.provenance.makers)
            self._load(file)
        self.header = header
        path = journal_path(self.path)
        if path.exists():
            journal = Journal(path, writable=True)
            try:
                check_identity(self.path, journal.identity, self.header.identity(), what="its journal")
                self._replay(journal)
            except BaseException:
                journal.close()
                raise
            self._journal = journal

    def _append(self, payload: bytes) -> None:
        """Adds a record to the journal, which is created with the first."""
        if self._open is None:
            raise RuntimeError(f"{self.path} is not open for writing: use `with`")
        if self._journal is None:
            self._journal = Journal.create(journal_path(self.path), self.header.identity())
        self._journal.append(payload)

    def _compact(self) -> None:
        """Merges the journal into the artefact, then removes the journal."""
        journal = self._journal
        if journal is None:
            return
        if journal.entries:
            journal.sync()
            with create_h5(self.path) as (new, check):
                old, _ = open_h5(self.path, self.header.schema)
                with old:
                    self.header.write(new, complete=self._is_complete())
                    self._fill(new, old, journal, check)
        self._journal = None
        journal.remove()
