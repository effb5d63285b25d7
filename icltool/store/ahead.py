"""Rows that came before their turn: kept beside the artefact until those in front of them are there.

An artefact that is filled in order from many workers at once gets its rows out of order; where a row cannot be made at all,
those after it wait here, and are not made again when the next run fills the gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icltool.store.artefact import check_identity
from icltool.store.journal import Entry, Journal, remove_journal


def ahead_path(artefact: Path) -> Path:
    """`.NAME.ahead` beside the artefact."""
    return artefact.with_name(f".{artefact.name}.ahead")


class RowsAhead:
    """Blocks of rows by the number of their first row. To be used under the lock of the artefact, whose `identity` it has."""

    def __init__(self, artefact: Path, identity: Mapping[str, Any]) -> None:
        self.path = ahead_path(artefact)
        self._artefact, self._identity = artefact, dict(identity)
        self._journal: Journal | None = None
        self._blocks: dict[int, tuple[int, Entry]] = {}

    def resume(self, head: Any) -> None:
        """Takes note of what an earlier run left; `head` is the struct of (first row, rows) that a payload begins with.
        StoreError where that belongs to other options."""
        if not self.path.exists():
            return
        self._journal = Journal(self.path, writable=True)
        try:
            check_identity(self._artefact, self._journal.identity, self._identity, what="its rows ahead")
            for entry in self._journal.entries:
                row, count = head.unpack(self._journal.read(entry, head.size))
                self._blocks[row] = (count, entry)
        except BaseException:
            self._journal.close()
            raise

    def put(self, row: int, count: int, payload: bytes) -> None:
        """Keeps a block. What it returned for is never lost."""
        if self._journal is None:
            self._journal = Journal.create(self.path, self._identity)
        self._blocks[row] = (count, self._journal.append(payload))

    def take(self, row: int) -> bytes | None:
        """The payload of the block that begins with this row, if there is one."""
        if row not in self._blocks:
            return None
        assert self._journal is not None
        return self._journal.read(self._blocks.pop(row)[1])

    def spans(self, done: int) -> list[range]:
        """The rows that are here, but for the first `done`: ascending, each once."""
        found: list[range] = []
        for start, (count, _) in sorted(self._blocks.items()):
            begin = max(start, found[-1].stop if found else done)
            if start + count > begin:
                found.append(range(begin, start + count))
        return found

    def close(self, done: int) -> None:
        """Closes the file; removes it where nothing in it lies behind the first `done` rows."""
        if self._journal is None:
            return
        left, journal = self.spans(done), self._journal
        self._journal = None
        if left:
            journal.close()
        else:
            journal.remove()

    def remove(self) -> None:
        """Drops everything."""
        remove_journal(self.path)
        self._blocks.clear()
