"""Rows that arrived out of order: they are kept beside the artefact until the rows before them are there. An artefact that
is filled in order by several workers receives its rows out of order; if a row fails, those after it wait here, and are not
computed again when the next run fills the gap.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path
from struct import Struct

from icltool.store.artefact import check_identity
from icltool.store.journal import Entry, Journal, remove_journal


def out_of_order_path(artefact: Path) -> Path:
    """`.NAME.ahead` beside the artefact."""
    return artefact.with_name(f".{artefact.name}.ahead")


class OutOfOrderRows:
    """Blocks of rows by the number of their first row. The caller must hold the lock of the artefact, whose `identity` it
    has."""

    def __init__(self, artefact: Path, identity: Mapping[str, object]) -> None:
        self.path = out_of_order_path(artefact)
        self._artefact, self._identity = artefact, dict(identity)
        self._journal: Journal | None = None
        self._blocks: dict[int, tuple[int, Entry]] = {}
        self._starts: list[int] = []  # a heap of their keys

    def resume(self, head: Struct, writable: bool = True) -> None:
        """Loads what an earlier run left, or another one is writing (not `writable`); `head` is the struct of (first row,
        rows) at the beginning of a payload. StoreError if it belongs to different options."""
        if not self.path.exists():
            return
        self._journal = Journal(self.path, writable)
        try:
            check_identity(self._artefact, self._journal.identity, self._identity, what="its rows ahead")
            for entry in self._journal.entries:
                row, count = head.unpack(self._journal.read(entry, head.size))
                self._keep(row, count, entry)
        except BaseException:
            self._journal.close()
            raise

    def put(self, row: int, count: int, payload: bytes) -> None:
        """Stores a block. Once it returns, the block is never lost."""
        if self._journal is None:
            self._journal = Journal.create(self.path, self._identity)
        self._keep(row, count, self._journal.append(payload))

    def next(self, row: int) -> tuple[bytes, int] | None:
        """The payload of a block with this row, and how many of its rows come before it. Blocks that end before the row are
        forgotten."""
        while self._starts and self._starts[0] <= row:
            count, entry = self._blocks[self._starts[0]]
            if self._starts[0] + count > row:
                assert self._journal is not None
                return self._journal.read(entry), row - self._starts[0]
            del self._blocks[heapq.heappop(self._starts)]
        return None

    def shrink(self) -> None:
        """Truncates the file to its initial size once nothing waits any more."""
        if self._journal is not None and not self._blocks and self._journal.entries:
            self._journal.clear()

    def spans(self, done: int) -> list[range]:
        """The stored rows after the first `done`, ascending, each once."""
        spans: list[range] = []
        for start, (count, _) in sorted(self._blocks.items()):
            begin = max(start, spans[-1].stop if spans else done)
            if start + count > begin:
                spans.append(range(begin, start + count))
        return spans

    def waiting(self, head: Struct, done: int) -> int:
        """The number of stored rows after the first `done`; read-only, even while another process is writing them."""
        self.resume(head, writable=False)
        if self._journal is not None:
            self._journal.close()
        return sum(map(len, self.spans(done)))

    def close(self, done: int) -> None:
        """Closes the file; removes it if it holds no rows after the first `done`."""
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
        self._starts.clear()

    def _keep(self, row: int, count: int, entry: Entry) -> None:
        if row not in self._blocks:
            heapq.heappush(self._starts, row)
        self._blocks[row] = (count, entry)
