"""Candidates drawn at random."""

from __future__ import annotations

import numpy as np

from icltool.components.retrievers.rows import draw_rows, excluded_rows
from icltool.contracts import IndexSet, IntArray, QuerySet, keyed_generator


class RandomSampler:
    """Uniform without replacement from all rows that do not leak; a pool is in the order of its draws."""

    needs: frozenset[str] = frozenset()

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        """Rows of `index` int64 [A, size]; see `icltool.contracts.Sampler`. DataError when too few rows are left."""
        pools = np.empty((len(anchors), size), dtype=np.int64)
        for position in range(len(anchors)):
            leaking = excluded_rows(index, anchors, position, size, "anchor")
            generator = keyed_generator(seed, "sampler.random", int(anchors.ids[position]))
            pools[position] = draw_rows(generator, len(index), leaking, size)
        return pools
