"""Demonstrations that are most similar to the query, by image or text on either side."""

from __future__ import annotations

from icltool.components.retrievers.approximate import EXACT, index_options
from icltool.components.retrievers.nearest import nearest_rows
from icltool.components.retrievers.options import embedding_kinds
from icltool.components.retrievers.rows import embeddings, excluded_rows
from icltool.contracts import IndexSet, IntArray, QuerySet


class SimilarityRetriever:
    """The nearest index rows by cosine between the query's `query` and the demonstrations' `demonstration` embedding.

    Both options are "image" or "text"; the encoder must map both into one space. Rows are ranked, equal similarities by
    row number. `index`, `probes` and `ef` say how they are searched (`retrievers.approximate`); only the exact
    search is nested. Raises ConfigError for an option out of range.
    """

    ranked = True

    def __init__(
        self, query: str, demonstration: str, index: str = "exact", probes: int | None = None, ef: int | None = None
    ) -> None:
        self.needs: frozenset[str] = embedding_kinds("similarity retrieval", query, demonstration)
        self.query = query
        self.demonstration = demonstration
        self.search = index_options("similarity retrieval", index, probes, ef)
        self.nested = self.search == EXACT

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots]; see `icltool.contracts.Retriever`. Nothing is drawn: `seed` has no effect.

        Raises DataError when a query has fewer rows left.
        """
        leaking = [excluded_rows(index, queries, position, shots, "query") for position in range(len(queries))]
        base, asked = embeddings(index, self.demonstration), embeddings(queries, self.query)
        return nearest_rows(base, asked, shots, leaking.__getitem__, self.search)
