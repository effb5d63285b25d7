"""Random demonstrations for images that are not queries of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from icltool.contracts import Example, IntArray, image_file, keyed_generator, shown_to
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from icltool.store.records import Records


class RandomDemonstrations:
    """Draws `shots` examples of the index records for each query, without replacement, keyed by the query's id.

    Examples of the query's own image, or of a near-duplicate, are skipped, and with "text" in `guard` (see
    `icltool.store.arrays.guard_kinds`) those whose label is a reference of the query, and examples without a label for the
    query's rule. If queries are of the same data set (`prepared`), equal image ids are one image; otherwise images are
    compared by their paths. Raises ConfigError if the index set is too small.
    """

    def __init__(self, index: Records, shots: int, seed: int, prepared: bool, guard: frozenset[str]) -> None:
        self._index, self._shots, self._seed = index, shots, seed
        self._prepared, self._texts = prepared, "text" in guard

    def __call__(self, query: Example) -> tuple[Example, ...]:
        """In the order of their draws."""
        generator = keyed_generator(self._seed, "caption.demonstrations", query.id)
        chosen: list[Example] = []
        for rows in _batches(generator.permutation(len(self._index)), max(1, 2 * self._shots)):
            if len(chosen) == self._shots:
                break
            fitting = (e for e in self._index.rows(rows) if not (e.labels and query.rule) or query.rule in e.labels)
            examples = (shown_to(example, query) if example.labels else example for example in fitting)
            allowed = [example for example in examples if not self._leaks(example, query)]
            chosen += allowed[: self._shots - len(chosen)]
        if len(chosen) < self._shots:
            raise ConfigError(
                f"--shots {self._shots}: only {len(chosen)} examples in {self._index.folder} show another image than the query",
                "lower --shots",
            )
        return tuple(chosen)

    def _leaks(self, example: Example, query: Example) -> bool:
        if not {*map(image_file, example.images)}.isdisjoint(map(image_file, query.images)):
            return True
        same = example.shares_image(query) or bool(query.group and example.group == query.group)
        return (self._prepared and same) or (self._texts and example.label in query.references)


def _batches(rows: IntArray, size: int) -> Sequence[IntArray]:
    return [rows[low : low + size] for low in range(0, len(rows), size)]


def random_rows(total: int, count: int, seed: int, purpose: str) -> IntArray:
    """`count` of `total` rows, or all if there are fewer, ascending."""
    rows: IntArray = np.sort(keyed_generator(seed, purpose).permutation(total)[:count]).astype(np.int64)
    return rows
