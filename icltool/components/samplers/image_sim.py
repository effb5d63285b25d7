"""Candidates whose image is similar to the anchor's."""

from __future__ import annotations

from icltool.components.retrievers.approximate import IndexOptions
from icltool.components.samplers.similarity import nearest_pools
from icltool.contracts import IndexSet, IntArray, QuerySet


class ImageSimilaritySampler:
    """The nearest rows by cosine of the image embeddings; a pool is ordered from the most to the least similar."""

    options_model = IndexOptions
    needs: frozenset[str] = frozenset({"image"})

    def __init__(self, options: IndexOptions) -> None:
        self.options = options

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        """Rows of `index` int64 [A, size]; see `icltool.contracts.Sampler`. Nothing is drawn: `seed` has no effect."""
        return nearest_pools(index, anchors, "image", size, self.options)
