"""The reader's side of every artefact: the HDF5 file and the journal of an unfinished run, read as one."""

from __future__ import annotations

import abc
import contextlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from icltool.errors import StoreError
from icltool.store.artefact import Header, Schema, open_h5, reading
from icltool.store.journal import Journal, journal_path
from icltool.store.provenance import Provenance

if TYPE_CHECKING:
    import h5py

Opened = TypeVar("Opened", bound="ArtefactFile")


class ArtefactFile(abc.ABC):
    """An artefact opened for reading: the HDF5 file, and the journal of a run that is in progress or was killed.

    A context manager; `close` may also be left to the garbage collector.
    """

    schema: Schema

    def __init__(self, path: Path, file: h5py.File, header: Header, journal: Journal | None) -> None:
        self.path = path
        self.header = header
        self._h5 = file
        self._journal = journal

    @classmethod
    def open(cls: type[Opened], path: Path) -> Opened:
        """Opens the file and the journal of an unfinished run. StoreError if the file is missing, truncated, or not such an
        artefact.

        The journal is opened *before* the HDF5 file: if the writer merges them meanwhile, rows are seen twice, which does
        no harm, and never missed. A journal of another identity belongs to a file that has since been restarted, and is
        ignored.
        """
        path = Path(path)
        with contextlib.ExitStack() as stack:
            journal = _journal_of(path)
            if journal is not None:
                stack.callback(journal.close)
            file, header = open_h5(path, cls.schema)
            stack.callback(file.close)
            if journal is not None and journal.identity != header.identity():
                journal.close()
                journal = None
            with reading(path, cls.schema):
                opened = cls(path, file, header, journal)
            stack.pop_all()
        return opened

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of stored rows or queries."""

    @property
    def complete(self) -> bool:
        """Whether all rows or queries are stored."""
        return len(self) == self.total

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._h5.close()
        if self._journal is not None:
            self._journal.close()

    @property
    def provenance(self) -> Provenance:
        return self.header.provenance

    @property
    def fingerprint(self) -> str:
        """A hash of the identity, 32 hex characters; a resumed run has that of an uninterrupted one."""
        return self.header.fingerprint()

    @property
    def total(self) -> int:
        """The number of rows or queries in a complete file."""
        return int(self.header.details["total"])

    def waiting(self) -> int:
        """The number of rows beside the file that wait for the rows before them."""
        return 0

    def expect_dataset(self, fingerprint: str, command: str | None = None) -> None:
        """Raises StoreError if the file was made from a data set with another fingerprint. `command` is the command in the
        hint; by default the one that creates this kind of file.
        """
        own = self.provenance.dataset_fingerprint
        if own != fingerprint:
            raise StoreError(
                f"{self.path} was made from another data set: fingerprint {own}, the prepared one has {fingerprint}",
                f"run `{command or self.schema.command}` again for the prepared data set, or give another file",
            )


def _journal_of(path: Path) -> Journal | None:
    try:
        return Journal(journal_path(path))
    except FileNotFoundError:
        return None
