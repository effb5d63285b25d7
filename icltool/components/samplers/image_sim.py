"""Candidates that look like the anchor."""

from __future__ import annotations

from icltool.components.retrievers.approximate import index_options
from icltool.components.samplers.similarity import nearest_pools
from icltool.contracts import IndexSet, IntArray, QuerySet


class ImageSimilaritySampler:
    """The nearest rows by cosine of the image embeddings; a pool is ordered from the most to the least similar.

    `index`, `probes` and `ef` say how they are searched (`retrievers.approximate`). ConfigError for one out of
    range.
    """

    needs: frozenset[str] = frozenset({"image"})

    def __init__(self, index: str = "exact", probes: int | None = None, ef: int | None = None) -> None:
        self.search = index_options("sampler 'image-sim'", index, probes, ef)

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        """Rows of `index` int64 [A, size]; see `icltool.contracts.Sampler`. Nothing is drawn: `seed` has no effect."""
        return nearest_pools(index, anchors, "image", size, self.search)
