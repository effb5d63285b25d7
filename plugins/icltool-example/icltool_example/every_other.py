"""A retriever that chooses among the rows of another retriever: `icltool evaluate --method i2i+every-other`."""

from __future__ import annotations

import numpy as np

from icltool import ConfigError, DataError, IndexSet, IntArray, QuerySet


class EveryOther:
    """Every second of twice as many rows, in the order of the retriever in front: as similar to the query, less redundant.

    If fewer rows are left, skipped rows fill the gap, from the first on.
    """

    needs = frozenset({"among"})  # keyword arguments of `retrieve`; "image", "labels" … would fill index and queries
    ranked = True  # if the retriever in front is
    nested = False

    def pool_size(self, shots: int) -> int:
        """How many rows the retriever in front must return."""
        return 2 * shots

    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, among: IntArray | None = None
    ) -> IntArray:
        """Rows of `index` int64 [Q, shots]. `among` int64 [Q, P] is padded with -1. Raises ConfigError without a retriever in
        front, DataError if it chose too few rows."""
        if among is None:
            raise ConfigError(
                "every-other chooses among the rows of another method", "for example --method i2i+every-other"
            )
        chosen = np.empty((len(queries), shots), dtype=np.int64)
        for position, candidates in enumerate(among):
            rows = candidates[candidates >= 0]
            if len(rows) < shots:
                raise DataError(f"query {queries.ids[position]}: {len(rows)} rows are too few to choose {shots} from")
            chosen[position] = np.concatenate([rows[::2], rows[1::2]])[:shots]
        return chosen
