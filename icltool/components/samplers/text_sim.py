"""Candidates whose text is similar to the anchor's."""

from __future__ import annotations

from icltool.components.retrievers.approximate import IndexOptions
from icltool.components.samplers.similarity import nearest_pools
from icltool.contracts import IndexSet, IntArray, QuerySet


class TextSimilaritySampler:
    """The nearest rows by cosine of the text embeddings (caption: the first caption; vqa: the question).

    A pool is ordered from the most to the least similar.
    """

    options_model = IndexOptions
    needs: frozenset[str] = frozenset({"text"})

    def __init__(self, options: IndexOptions) -> None:
        self.options = options

    def sample(self, index: IndexSet, anchors: QuerySet, size: int, seed: int) -> IntArray:
        """Rows of `index` int64 [A, size]; see `icltool.contracts.Sampler`. Nothing is drawn: `seed` has no effect."""
        return nearest_pools(index, anchors, "text", size, self.options)
