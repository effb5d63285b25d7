"""A sampler: candidates whose images are least similar to the anchor's, the opposite of `image-sim`."""

from __future__ import annotations

import numpy as np

from icltool import DataError, FloatArray, IndexSet, IntArray, QuerySet


class FarthestSampler:
    """The rows with the lowest cosine between image embeddings; a pool begins with the least similar.

    Equal similarities are ordered by row. Nothing is drawn, so the seed has no effect.
    """

    needs = frozenset({"image"})

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        """Rows of `index` int64 [A, size]. Raises DataError if an anchor has fewer rows left."""
        if index.image is None or anchors.image is None:
            raise ValueError("image embeddings are needed")
        images, anchor_images = _unit(index.image), _unit(anchors.image)
        pools = np.empty((len(anchors), size), dtype=np.int64)
        for position in range(len(anchors)):
            allowed = np.ones(len(index), dtype=bool)
            allowed[index.leaking_rows(anchors, position)] = False  # the anchor, its image, its near-duplicates
            rows = np.flatnonzero(allowed)
            if len(rows) < size:
                raise DataError(
                    f"anchor {anchors.ids[position]}: {size} candidates requested, but only {len(rows)} rows are left",
                    "ask for fewer, or use a larger index set",
                )
            # One anchor at a time, so that the products do not depend on the other anchors of this call.
            similarity = (images @ anchor_images[position])[rows]
            pools[position] = rows[np.lexsort((rows, similarity))[:size]]
        return pools


def _unit(vectors: FloatArray) -> FloatArray:
    """L2-normalised float32 [n, D]; embeddings are not normalised."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
