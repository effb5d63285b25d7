"""A retrieval method that chooses among what another one chose: `icltool evaluate --method i2i+every-other`."""

from __future__ import annotations

import numpy as np

from icltool import ConfigError, DataError, IndexSet, IntArray, QuerySet


class EveryOther:
    """Every other one of twice as many rows, in the order of the method in front: as similar, but less alike.

    Where fewer rows are left, those that were passed over fill up, from the first on.
    """

    needs = frozenset(
        {"among"}
    )  # what comes as keyword arguments of `retrieve`; "image", "labels" … fill index and queries
    ranked = True  # where the method in front is
    nested = False

    def wants(self, shots: int) -> int:
        """How many rows the method in front is asked for."""
        return 2 * shots

    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, among: IntArray | None = None
    ) -> IntArray:
        """Rows of `index` int64 [Q, shots]. `among` int64 [Q, P] are padded with -1. ConfigError where there is no method in
        front, DataError where it chose too few."""
        if among is None:
            raise ConfigError("every-other chooses among the rows of another method", "--method i2i+every-other")
        chosen = np.empty((len(queries), shots), dtype=np.int64)
        for position, given in enumerate(among):
            rows = given[given >= 0]
            if len(rows) < shots:
                raise DataError(f"query {queries.ids[position]}: {len(rows)} rows are too few to choose {shots} from")
            chosen[position] = np.concatenate([rows[::2], rows[1::2]])[:shots]
        return chosen
