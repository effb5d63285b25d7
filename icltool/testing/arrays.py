"""Index sets and queries made up for tests, with known leaks, repeated vectors and ids that are not row numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from icltool.contracts import FloatArray, IndexSet, IntArray, QuerySet, group_code
from icltool.contracts.arrays import ARRAYS, encoder_of

ALL_ARRAYS = ARRAYS
_WORDS = ("red", "green", "blue", "round", "square", "small", "large", "striped", "dog", "cat", "boat", "tree")


def make_index(count: int = 240, dim: int = 16, seed: int = 0, needs: frozenset[str] = ALL_ARRAYS) -> IndexSet:
    """`count` rows in a mixed-up order: three rows share each image (and its vector), every second image is in a group
    of near-duplicates with three others (whose vectors are close), and every fifth text is shared; see `made_label`.

    Arrays not in `needs` are None (texts: empty). All are read-only, so that a component that writes into them fails.
    """
    rng = np.random.default_rng([seed, count, dim])
    image_ids = rng.permutation(np.arange(count) // 3 + 1000)
    groups = np.array([group_code(f"group-{i // 8}") if i % 2 else -1 for i in image_ids.tolist()], dtype=np.int64)
    ids = rng.permutation(10 * count)[:count].astype(np.int64) + 5
    text_codes = np.where(np.arange(count) % 5 == 0, 0, np.arange(count))
    _, first, codes = np.unique(image_ids, return_index=True, return_inverse=True)
    first_rows = first[codes]
    _, cluster = np.unique(np.where(groups < 0, image_ids, groups), return_inverse=True)
    image, text = rng.standard_normal((2, count, dim))[:, cluster] + 0.05 * rng.standard_normal((2, count, dim))
    image, text = image[first_rows], 3 * text[text_codes]
    sentences = [" ".join(rng.choice(_WORDS, size=4)) for _ in range(count)]
    return IndexSet(
        _fixed(ids),
        _fixed(image_ids.astype(np.int64)),
        _fixed(groups),
        _fixed(image.astype(np.float32)) if "image" in needs else None,
        _fixed(text.astype(np.float32)) if "text" in needs else None,
        tuple(sentences[c] for c in text_codes) if "texts" in needs else (),
        tuple(f"/images/{i}.png" for i in image_ids.tolist()) if "images" in needs else (),
        labels=tuple(made_label(i) for i in ids.tolist()) if "labels" in needs else (),
        embedded={
            need: _fixed(rng.standard_normal((count, dim)).astype(np.float32))
            for need in sorted(needs)
            if encoder_of(need)
        },
    )


def made_label(example: int) -> str:
    """The label of a made-up example by its id."""
    return _WORDS[example % len(_WORDS)]


def make_anchors(index: IndexSet, rows: Sequence[int] | IntArray) -> QuerySet:
    """Rows of the index set as queries of the same split."""
    return _queries(index, np.asarray(rows, dtype=np.int64), index.ids, True)


def make_queries(index: IndexSet, rows: Sequence[int] | IntArray, seed: int = 0) -> QuerySet:
    """Queries of another split: they have the images of `rows` (so these rows and their groups leak), but the ids of other
    rows, which are different examples and do not leak."""
    rows = np.asarray(rows, dtype=np.int64)
    foreign = index.ids[(np.arange(len(index)) + len(index) // 2 + seed) % len(index)]
    return _queries(index, rows, foreign, False)


def take(queries: QuerySet, positions: Sequence[int] | IntArray) -> QuerySet:
    """The queries at `positions`, in that order."""
    part = queries.take(np.asarray(positions, dtype=np.int64))
    for values in [getattr(part, column.name) for column in fields(part)] + list(part.embedded.values()):
        if isinstance(values, np.ndarray):
            values.flags.writeable = False
    return part


def _queries(index: IndexSet, rows: IntArray, ids: IntArray, same_split: bool) -> QuerySet:
    def at(vectors: FloatArray | None) -> FloatArray | None:
        return None if vectors is None else _fixed(vectors[rows])

    texts = tuple(index.texts[r] for r in rows.tolist()) if index.texts else ()
    images = tuple(index.images[r] for r in rows.tolist()) if index.images else ()
    picked = (_fixed(ids[rows]), _fixed(index.image_ids[rows]), _fixed(index.groups[rows]))
    embedded = {need: _fixed(vectors[rows]) for need, vectors in index.embedded.items()}
    return QuerySet(*picked, at(index.image), at(index.text), texts, same_split, images, embedded=embedded)


def _fixed(array: Any) -> Any:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array
