"""Candidates that look like the anchor."""

from __future__ import annotations

from icltool.contracts import IndexSet, IntArray, QuerySet
from icltool.samplers.similarity import nearest_pools


class ImageSimilaritySampler:
    """The nearest rows by cosine of the image embeddings; a pool is ordered from the most to the least similar."""

    needs: frozenset[str] = frozenset({"image"})

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        """Rows of `index` int64 [A, size]; see `icltool.contracts.Sampler`. Nothing is drawn: `seed` has no effect."""
        return nearest_pools(index, anchors, "image", size)
