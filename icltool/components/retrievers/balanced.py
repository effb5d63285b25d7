"""The same number of demonstrations of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import reduce

import numpy as np
from pydantic import Field

from icltool.components.retrievers.imageless import choose_by_image
from icltool.components.retrievers.nearest import normalised
from icltool.components.retrievers.rows import draw_rows, embeddings, excluded_rows
from icltool.contracts import Float64Array, IndexSet, IntArray, Options, QuerySet, keyed_generator
from icltool.errors import ConfigError


class BalancedOptions(Options):
    """How many of each class, and which."""

    per_class: int = Field(1, ge=1, description="number of demonstrations of each class")
    fixed: bool = Field(False, description="use the same demonstrations for all queries, in the same order")
    nearest: bool = Field(
        False, description="take the examples of each class whose images are most similar to the query's"
    )


class BalancedRetriever:
    """`per_class` examples of each class, drawn for each query by seed (`fixed`: one set for all queries; `nearest`: by the
    image's embedding), in an order that is drawn as well.

    A class with fewer examples gives all it has. Where the leak guard leaves a query fewer of a class, the other classes fill
    the gap, by the same draw. The number of shots is that of all classes together, or 0.
    """

    options_model = BalancedOptions
    ranked = False
    nested = False

    def __init__(self, options: BalancedOptions) -> None:
        if options.fixed and options.nearest:
            raise ConfigError(
                "fixed gives all queries one set, but nearest depends on the query", "leave one of them out"
            )
        self.options = options
        self.needs = frozenset({"labels", "image"} if options.nearest else {"labels"})
        self.joint = options.fixed
        self.compared_images = frozenset({"queries", "demonstrations"} if options.nearest else ())

    def shots_for(self, labels: Sequence[str]) -> int:
        """See CountsLabels."""
        return sum(min(self.options.per_class, count) for count in Counter(labels).values())

    def remarks_on(self, labels: Sequence[str]) -> list[str]:
        """See CountsLabels."""
        few = sum(count < self.options.per_class for count in Counter(labels).values())
        classes = "1 class has" if few == 1 else f"{few:,} classes have"
        return [f"balanced: {classes} fewer than {self.options.per_class} examples"] if few else []

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots]; see `icltool.contracts.Retriever`. Raises ConfigError for another number of shots,
        DataError when too few rows are left."""
        self._check(index, shots)

        def choose(queries: QuerySet, among: IntArray | None, without: IntArray) -> IntArray:
            return self._choose(index, queries, shots, seed, without)

        return choose_by_image(choose, self.compared_images, index, queries, shots, seed)

    def _check(self, index: IndexSet, shots: int) -> None:
        total = self.shots_for(index.labels)
        if shots not in (0, total):
            raise ConfigError(
                f"balanced takes {total} shots, {self.options.per_class} of each of {len(set(index.labels))} classes, got "
                f"{shots}",
                f"--shots {total}, or leave --shots out",
            )

    def _choose(self, index: IndexSet, queries: QuerySet, shots: int, seed: int, without: IntArray) -> IntArray:
        places = range(len(queries))
        chosen = np.empty((len(queries), shots), dtype=np.int64)
        if not shots or not len(queries):
            return chosen
        leaking = [excluded_rows(index, queries, position, shots, "query", without) for position in places]
        classes = _rows_by_class(index)
        if self.options.fixed:
            excluded = reduce(np.union1d, leaking)
            if len(index) - len(excluded) < shots:
                raise ConfigError(
                    f"one set of {shots} demonstrations for all queries is needed, but only {len(index) - len(excluded)} rows "
                    "leak no query's answer",
                    "leave out `fixed`, or use a larger index set",
                )
            generator = keyed_generator(seed, "retriever.balanced.fixed")
            return np.tile(self._drawn(classes, excluded, len(index), shots, generator), (len(queries), 1))
        units = normalised(embeddings(index, "image")) if self.options.nearest else None
        for position, query in enumerate(queries.ids.tolist()):
            generator = keyed_generator(seed, "retriever.balanced", query)
            candidates = [np.setdiff1d(rows, leaking[position]) for rows in classes]
            if units is not None:
                vector = normalised(embeddings(queries, "image")[position : position + 1])[0].astype(np.float64)
                candidates = _nearest(candidates, (units * vector).sum(axis=1), self.options.per_class)
            chosen[position] = self._drawn(candidates, leaking[position], len(index), shots, generator)
        return chosen

    def _drawn(
        self, classes: Sequence[IntArray], excluded: IntArray, total: int, shots: int, generator: np.random.Generator
    ) -> IntArray:
        """int64 [shots]: `per_class` of the rows of each class that are not excluded, and others if they are too few."""
        parts = []
        for rows in classes:
            left = np.setdiff1d(rows, excluded)
            count = min(self.options.per_class, len(left))
            parts.append(left[draw_rows(generator, len(left), np.empty(0, np.int64), count)])
        drawn = np.concatenate(parts)
        if len(drawn) < shots:
            taken = np.union1d(excluded, drawn)
            drawn = np.concatenate([drawn, draw_rows(generator, total, taken, shots - len(drawn))])
        shuffled: IntArray = drawn[generator.permutation(len(drawn))].astype(np.int64)
        return shuffled


def _rows_by_class(index: IndexSet) -> list[IntArray]:
    """The rows of each class, ascending; the classes by their names."""
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(index.labels):
        rows.setdefault(label, []).append(row)
    return [np.array(rows[label], dtype=np.int64) for label in sorted(rows)]


def _nearest(classes: Sequence[IntArray], cosines: Float64Array, count: int) -> list[IntArray]:
    """Of each class the `count` rows with the largest cosines, of equal ones the lowest rows."""
    return [rows[np.lexsort((rows, -cosines[rows]))[:count]] for rows in classes]
