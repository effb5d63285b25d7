"""The reader's side of every artefact: the HDF5 file and the journal of an unfinished run as one."""

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
    """An artefact opened for reading: the HDF5 file, and the journal of a run that is still going or was killed.

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
        """Opens the file and the journal of an unfinished run. StoreError when the file is missing, cut, or something else.

        The journal is opened *before* the HDF5 file: should the writer replace the one and remove the other meanwhile,
        rows are seen twice, which does no harm, and never not at all. A journal of another identity is one of a file that
        was since started again, and is passed over.
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
        """How many rows or queries are there."""

    @property
    def complete(self) -> bool:
        """Whether all of them are there."""
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
        """32 hex characters for the identity; a resumed run has that of an uninterrupted one."""
        return self.header.fingerprint()

    @property
    def total(self) -> int:
        """How many rows or queries a complete file has."""
        return int(self.header.details["total"])

    def waiting(self) -> int:
        """How many rows lie beside the file and wait for those in front of them."""
        return 0

    def expect_dataset(self, fingerprint: str, command: str | None = None) -> None:
        """StoreError when the file was made from a data set with another fingerprint than the one given.

        `command` is what the hint says to run; by default the command that makes this kind of file.
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
