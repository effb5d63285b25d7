"""Demonstrations that are most similar to the query, comparing image or text on either side."""

from __future__ import annotations

import numpy as np

from icltool.components.retrievers.approximate import EXACT, IndexOptions
from icltool.components.retrievers.imageless import choose_by_image, compared_images
from icltool.components.retrievers.nearest import nearest_rows
from icltool.components.retrievers.options import EmbeddingOptions, SecondOptions
from icltool.components.retrievers.pool import given_pools
from icltool.components.retrievers.rows import embeddings, excluded_rows
from icltool.contracts import IndexSet, IntArray, QuerySet


class SimilarityOptions(EmbeddingOptions, IndexOptions, SecondOptions):
    """What to compare, and how to search for the nearest rows."""


class SimilarityRetriever:
    """The nearest index rows by cosine between the query's `query` and the demonstrations' `demonstration` embedding.

    After another method, the nearest among that method's rows. Rows are ranked, equal similarities by row number; only the
    exact search is nested.
    """

    options_model = SimilarityOptions
    ranked = True

    def __init__(self, options: SimilarityOptions) -> None:
        self.options = options
        self.needs = options.needs | {"among"}
        self.query = options.query
        self.compared_images = compared_images(options)
        self.nested = options.index == EXACT.index

    def pool_size(self, shots: int) -> int:
        """See HasPoolSize."""
        return self.options.pool_size(shots)

    def retrieve(
        self, index: IndexSet, queries: QuerySet, shots: int, seed: int, *, among: IntArray | None = None
    ) -> IntArray:
        """Rows of `index` int64 [Q, shots]; see `icltool.contracts.Retriever`. `seed` draws for queries without an image only.

        Raises DataError when a query has fewer rows left.
        """
        if among is None:
            self.options.check_alone()

        def choose(queries: QuerySet, among: IntArray | None, without: IntArray) -> IntArray:
            if among is not None:
                rows = [pool.rows[:shots] for pool in given_pools(self.options, index, queries, shots, among, without)]
                return np.array(rows, dtype=np.int64).reshape(len(queries), shots)
            places = range(len(queries))
            leaking = [excluded_rows(index, queries, position, shots, "query", without) for position in places]
            base, targets = embeddings(index, self.options.demonstration), embeddings(queries, self.options.query)
            return nearest_rows(base, targets, shots, leaking.__getitem__, self.options)

        return choose_by_image(choose, self.compared_images, index, queries, shots, seed, among)
