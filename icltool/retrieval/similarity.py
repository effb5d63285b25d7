"""Demonstrations that are most similar to the query, by image or text on either side."""

from __future__ import annotations

from icltool.contracts import IndexSet, IntArray, QuerySet
from icltool.retrieval.nearest import nearest_rows
from icltool.retrieval.options import embedding_kinds
from icltool.retrieval.rows import embeddings, excluded_rows


class SimilarityRetriever:
    """The nearest index rows by cosine between the query's `query` and the demonstrations' `demonstration` embedding.

    Both options are "image" or "text"; the encoder must map both into one space. Rows are ranked, equal similarities by
    row number.
    """

    ranked = True
    nested = True

    def __init__(self, query: str, demonstration: str) -> None:
        self.needs: frozenset[str] = embedding_kinds("similarity retrieval", query, demonstration)
        self.query = query
        self.demonstration = demonstration

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots]; see `icltool.contracts.Retriever`. Nothing is drawn: `seed` has no effect.

        Raises DataError when a query has fewer rows left.
        """
        leaking = [excluded_rows(index, queries, position, shots, "query") for position in range(len(queries))]
        return nearest_rows(
            embeddings(index, self.demonstration), embeddings(queries, self.query), shots, leaking.__getitem__
        )
