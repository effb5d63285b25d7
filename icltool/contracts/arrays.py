"""The index set and the queries as arrays, which is all that samplers and retrievers see of the data."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float32]
Float64Array: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]

#: Arrays that `needs` may name, besides "image@ENCODER" and "text@ENCODER" (`encoder_of`).
ARRAYS: frozenset[str] = frozenset({"image", "text", "texts", "images", "labels"})


#: Pads the rows of `more_image_ids` and `support`: no image and no example has this identity.
NO_IMAGE = -(1 << 63)

#: Kinds of `leaks_by_kind` that leak nothing: rows that are not meant for a query.
NOT_MEANT = frozenset({"rule", "support"})

_NONE: IntArray = np.empty(0, dtype=np.int64)


def encoder_of(need: str) -> str | None:
    """NAME if `need` is "image@NAME" or "text@NAME", an embedding by the encoder of that name; else None."""
    kind, _, encoder = need.partition("@")
    return encoder if encoder and kind in ("image", "text") else None


def is_array(need: str) -> bool:
    """Whether an entry of `needs` is an array of the IndexSet and the QuerySet."""
    return need in ARRAYS or encoder_of(need) is not None


def group_code(group: str) -> int:
    """A stable non-negative 63-bit code of a near-duplicate group's name; -1 for "" (no group)."""
    if not group:
        return -1
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "big") >> 1


class _Blanked(dict[int, int | str]):
    """A table for `str.translate` that maps punctuation (Unicode's categories P*) to a blank and any other character to
    itself."""

    def __missing__(self, code: int) -> int | str:
        self[code] = " " if unicodedata.category(chr(code)).startswith("P") else code
        return self[code]


_BLANKED = _Blanked()


def plain_text(text: str) -> str:
    """The form in which texts are compared: case folded, with punctuation as blanks and runs of blanks as one."""
    return " ".join(text.casefold().translate(_BLANKED).split())


def text_code(*parts: str) -> int:
    """A stable non-negative 63-bit code of the texts as `plain_text`, in their order; -1 if all of them are empty."""
    plain = [plain_text(part) for part in parts]
    return group_code("\x00".join(plain)) if any(plain) else -1


def _embedding(arrays: QuerySet | IndexSet, need: str) -> FloatArray:
    """The embedding that `need` names. ValueError if it is None."""
    vectors = {"image": arrays.image, "text": arrays.text, **arrays.embedded}.get(need)
    if vectors is None:
        raise ValueError(f"{type(arrays).__name__}.{need} is None, but the component needs it")
    return vectors


def _selected(arrays: QuerySet | IndexSet, positions: IntArray) -> dict[str, Any]:
    """The columns at `positions`, without those that are None or empty."""
    parts: dict[str, Any] = {"embedded": {need: vectors[positions] for need, vectors in arrays.embedded.items()}}
    for column in fields(arrays):
        values = getattr(arrays, column.name)
        if isinstance(values, np.ndarray):
            parts[column.name] = values[positions]
        elif isinstance(values, tuple) and values:
            parts[column.name] = tuple(values[position] for position in positions.tolist())
    return parts


def _images_at(queries: QuerySet, position: int) -> IntArray:
    """The distinct identities of a query's images."""
    first = queries.image_ids[position : position + 1]
    if queries.more_image_ids is None:
        return first
    images = np.unique(np.concatenate([first, queries.more_image_ids[position]]))
    distinct: IntArray = images[images != NO_IMAGE]
    return distinct


@dataclass(frozen=True)
class QuerySet:
    """Q queries as arrays.

    `ids`, `image_ids`, `groups` int64 [Q] (`groups` by `group_code`); `more_image_ids` int64 [Q, M] are the identities of
    the queries' further images, NO_IMAGE for none, or None if no query has any. `image` and `text` float32 [Q, D] are the
    encoder's features as stored, not normalised; None unless the component asks for them. `texts` are the retrieval texts
    and `images` the references of the images, for components that ask for them. `same_split` is true if the queries are
    themselves rows of the index set (anchors), so that equal ids are one example.

    `questions` int64 [Q] and `contents` int64 [Q, R] are codes by `text_code`, -1 for none, present if the leak guard
    compares texts: of the question, and of the question with each of up to R references (captions: of the references).
    `embedded` are the embeddings by other encoders, float32 [Q, D] by need ("text@NAME"); see `of`. `rules` int64 [Q] is
    the `group_code` of each query's rule, -1 for none; None if no query has one. `support` int64 [Q, S] are the ids of the
    examples that may be shown to each query, NO_IMAGE on the right (only these: all); None if no query has a support set.
    There are no labels.
    """

    ids: IntArray
    image_ids: IntArray
    groups: IntArray
    image: FloatArray | None = None
    text: FloatArray | None = None
    texts: tuple[str, ...] = ()
    same_split: bool = False
    images: tuple[str, ...] = ()
    questions: IntArray | None = None
    contents: IntArray | None = None
    embedded: Mapping[str, FloatArray] = field(default_factory=dict)
    more_image_ids: IntArray | None = None
    rules: IntArray | None = None
    support: IntArray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, need: str) -> FloatArray:
        """The embedding that `need` ("image", "text", "image@NAME" or "text@NAME") names, float32 [Q, D]. ValueError if the
        component did not ask for it."""
        return _embedding(self, need)

    def support_of(self, position: int) -> IntArray:
        """The ids that may be shown to the query at `position`, int64 [s]; [0] where all may."""
        if self.support is None:
            return _NONE
        ids: IntArray = self.support[position][self.support[position] != NO_IMAGE]
        return ids

    def take(self, positions: IntArray) -> QuerySet:
        """The queries at `positions`, in that order."""
        return replace(self, **_selected(self, positions))


@dataclass(frozen=True)
class IndexSet:
    """The N examples that demonstrations are chosen from, as arrays; components answer with *rows* of it.

    Fields as in QuerySet, [N] and [N, D]; `contents` int64 [N] is the code of the question with the label (captions: of
    the label), which is all that the model reads of a demonstration beside its image. `labels` are the N labels, for
    components that ask for them. `rules` int64 [N, R] are the codes of the rules that each example has a label for, -1 on the
    right; `contents` is [N, 1 + R] then: with the label, and with that of each rule.
    """

    ids: IntArray
    image_ids: IntArray
    groups: IntArray
    image: FloatArray | None = None
    text: FloatArray | None = None
    texts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    questions: IntArray | None = None
    contents: IntArray | None = None
    labels: tuple[str, ...] = ()
    embedded: Mapping[str, FloatArray] = field(default_factory=dict)
    more_image_ids: IntArray | None = None
    rules: IntArray | None = None
    _lookup: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, need: str) -> FloatArray:
        """As `QuerySet.of`, float32 [N, D]."""
        return _embedding(self, need)

    def take(self, rows: IntArray) -> IndexSet:
        """The examples in these rows, in that order."""
        return replace(self, _lookup={}, **_selected(self, rows))

    def leaking_rows(self, queries: QuerySet, position: int) -> IntArray:
        """Rows that would leak the answer to the query at `position`, ascending int64.

        They are the query itself (if it comes from this split), every example with one of the query's images or of the same
        near-duplicate group, and, if both sides have `questions` or `contents`, every example that asks the query's
        question or has its text. If the query has a rule, they include every example without a label for it; if it has a
        support set, every example outside that.
        """
        leaks = [rows for rows in self.leaks_by_kind(queries, position).values() if len(rows)]
        if not leaks:
            return np.empty(0, dtype=np.int64)
        # np.unique took 40 times as long where a query had 36,000 rows
        ordered = np.sort(leaks[0] if len(leaks) == 1 else np.concatenate(leaks))
        rows: IntArray = ordered[np.append(True, ordered[1:] != ordered[:-1])]
        return rows

    def leaks_by_kind(self, queries: QuerySet, position: int) -> dict[str, IntArray]:
        """The rows to withhold from the query at `position` by reason, each int64: "image" (including the query itself),
        "group", "question" and "text" if they share these with it; "rule" if they have no label for its rule; "support" if
        they are outside its support set. A row may be of several kinds; kinds that are not compared are left out."""
        image = self._rows_with("image_ids", _images_at(queries, position))
        if queries.same_split:
            image = np.union1d(image, self._rows_with("ids", queries.ids[position : position + 1]))
        leaks = {"image": image, "group": self._rows_with("groups", queries.groups[position : position + 1])}
        if self.questions is not None and queries.questions is not None:
            leaks["question"] = self._rows_with("questions", queries.questions[position : position + 1])
        if self.contents is not None and queries.contents is not None:
            leaks["text"] = self._rows_with_content(queries, position, queries.contents[position])
        if self.rules is not None and queries.rules is not None and queries.rules[position] >= 0:
            leaks["rule"] = np.flatnonzero((self.rules != queries.rules[position]).all(axis=1)).astype(np.int64)
        if len(support := queries.support_of(position)):
            outside = np.ones(len(self), dtype=np.bool_)
            outside[self._rows_with("ids", support)] = False
            leaks["support"] = np.flatnonzero(outside).astype(np.int64)
        return leaks

    def _rows_with_content(self, queries: QuerySet, position: int, contents: IntArray) -> IntArray:
        """Rows that are shown to the query with one of these `contents`."""
        if self.rules is None or self.contents is None:
            return self._rows_with("contents", contents)
        rule = -1 if queries.rules is None else int(queries.rules[position])
        shown = self.contents[:, :1] if rule < 0 else np.where(self.rules == rule, self.contents[:, 1:], -1)
        return np.flatnonzero(np.isin(shown, contents[contents >= 0]).any(axis=1)).astype(np.int64)

    def _rows_with(self, column: str, values: IntArray) -> IntArray:
        """Rows whose `column` is one of `values`, by binary search in an order that is sorted once. -1 is not a code."""
        if column not in self._lookup:
            stored, of_row = getattr(self, column), np.arange(len(self), dtype=np.int64)
            if column == "image_ids" and self.more_image_ids is not None:
                stored = np.concatenate([stored, self.more_image_ids.reshape(-1)])
                of_row = np.concatenate([of_row, of_row.repeat(self.more_image_ids.shape[1])])
            order = np.argsort(stored, kind="stable").astype(np.int64)
            self._lookup[column] = (of_row[order], stored[order])
        order, ordered = self._lookup[column]
        if column not in ("ids", "image_ids"):
            values = values[values >= 0]
        low, high = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
        parts = [order[a:b] for a, b in zip(low.tolist(), high.tolist(), strict=True) if b > a]
        rows: IntArray = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=np.int64), *parts])
        return rows
