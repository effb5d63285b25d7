"""Arrays that samplers and retrieval methods see in place of files: the index set and the queries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float32]
Float64Array: TypeAlias = NDArray[np.float64]


def group_code(group: str) -> int:
    """A stable non-negative 63-bit code of a near-duplicate group's name; -1 for "" (no group)."""
    if not group:
        return -1
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class QuerySet:
    """Q queries as arrays.

    `ids`, `image_ids`, `groups` int64 [Q] (`groups` by `group_code`). `image` and `text` float32 [Q, D] are the
    encoder's features as stored, not normalised; None where the component did not ask for them. `texts` are the
    retrieval texts and `images` the paths of the images, for components that ask for them. `same_split` is true when
    the queries are themselves rows of the index set (anchors), so that equal ids are one example.
    """

    ids: IntArray
    image_ids: IntArray
    groups: IntArray
    image: FloatArray | None = None
    text: FloatArray | None = None
    texts: tuple[str, ...] = ()
    same_split: bool = False
    images: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class IndexSet:
    """The N examples that demonstrations are chosen from, as arrays; components answer with *rows* of it.

    Fields as in QuerySet, [N] and [N, D].
    """

    ids: IntArray
    image_ids: IntArray
    groups: IntArray
    image: FloatArray | None = None
    text: FloatArray | None = None
    texts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    _lookup: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def leaking_rows(self, queries: QuerySet, position: int) -> IntArray:
        """Rows that would leak the answer to the query at `position`, ascending int64.

        They are the query itself (when it comes from this split), every example of the same image, and every example of
        the same near-duplicate group.
        """
        found = [self._rows_with("image_ids", int(queries.image_ids[position]))]
        if queries.same_split:
            found.append(self._rows_with("ids", int(queries.ids[position])))
        if queries.groups[position] >= 0:
            found.append(self._rows_with("groups", int(queries.groups[position])))
        return np.unique(np.concatenate(found))

    def _rows_with(self, column: str, value: int) -> IntArray:
        """Rows whose `column` equals `value`, by binary search in an order that is sorted once."""
        if column not in self._lookup:
            values = getattr(self, column)
            order = np.argsort(values, kind="stable")
            self._lookup[column] = (order, values[order])
        order, ordered = self._lookup[column]
        low, high = np.searchsorted(ordered, value, "left"), np.searchsorted(ordered, value, "right")
        rows: IntArray = order[low:high].astype(np.int64)
        return rows
