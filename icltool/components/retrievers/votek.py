"""Demonstrations from a small subset that represents the index set."""

from __future__ import annotations

import hashlib

import numpy as np
from pydantic import Field

from icltool.components.retrievers.imageless import choose_by_image, compared_images
from icltool.components.retrievers.nearest import NearestRows
from icltool.components.retrievers.options import EmbeddingOptions
from icltool.components.retrievers.rows import embeddings, excluded_rows
from icltool.contracts import FloatArray, IndexSet, IntArray, QuerySet, keyed_generator
from icltool.errors import DataError


class VoteKOptions(EmbeddingOptions):
    """Options of the subset."""

    budget: int = Field(100, ge=1, description="number of rows to select for all queries")
    neighbours: int = Field(150, ge=1, description="number of nearest rows that each row of the graph is linked to")
    discount: float = Field(
        10.0, ge=1, le=1e6, description="factor by which a vote loses weight for each selected neighbour"
    )
    sample: int = Field(10_000, ge=2, description="number of rows of the index set in the graph, drawn at random")


class VoteKRetriever:
    """The nearest of `budget` rows that vote-k selected from the index set (Su et al., Selective annotation makes
    language models better few-shot learners, 2023; the variant without a language model, "fast vote-k").

    In the graph where each row points at its `neighbours` nearest rows, a row's score is the sum over the unselected rows v
    that point at it of `discount` ** -(number of selected rows that v points at); the row with the highest score is
    selected (ties to the lowest), and so on until there are `budget`. The subset serves all queries: only its rows would
    have to be labelled. As in the paper, the graph covers a sample of the index set (`sample` rows, drawn by the seed; the
    paper has 3,000), since it takes sample x sample products; a smaller index set is used whole.

    Similarity to the query is the cosine between the query's `query` and the rows' `demonstration` embedding; the graph is
    of the `demonstration` embeddings. Rows are ranked; the first k of a longer list are what a call for k gives.
    """

    options_model = VoteKOptions
    ranked = True
    nested = True

    def __init__(self, options: VoteKOptions) -> None:
        self.options = options
        self.needs = options.needs
        self.compared_images = compared_images(options)
        self._known: dict[tuple[int, bytes], IntArray] = {}

    def retrieve(self, index: IndexSet, queries: QuerySet, shots: int, seed: int) -> IntArray:
        """Rows of `index` int64 [Q, shots]; see `icltool.contracts.Retriever`.

        Raises DataError when a query has fewer rows left in the subset.
        """

        def choose(queries: QuerySet, among: IntArray | None, without: IntArray) -> IntArray:
            return self._nearest(index, queries, shots, seed, without)

        return choose_by_image(choose, self.compared_images, index, queries, shots, seed)

    def _nearest(self, index: IndexSet, queries: QuerySet, shots: int, seed: int, without: IntArray) -> IntArray:
        """The nearest of the subset, which has none of the rows `without` an image."""
        for position in range(len(queries)):
            excluded_rows(index, queries, position, shots, "query", without)
        if not shots or not len(queries):
            return np.empty((len(queries), shots), dtype=np.int64)
        subset = self.subset(embeddings(index, self.options.demonstration), seed, without)
        leaking = [
            np.flatnonzero(np.isin(subset, index.leaking_rows(queries, position))) for position in range(len(queries))
        ]
        for position, places in enumerate(leaking):
            if len(subset) - len(places) < shots:
                raise DataError(
                    f"votek: query {int(queries.ids[position])}: {shots} rows are needed, but only "
                    f"{len(subset) - len(places)} of the {len(subset)} selected do not leak its answer",
                    f"ask for fewer, or select more: --method-option votek.budget={4 * self.options.budget}",
                )
        search = NearestRows(embeddings(index, self.options.demonstration)[subset])
        return subset[search.search(embeddings(queries, self.options.query), shots, leaking.__getitem__)]

    def subset(self, vectors: FloatArray, seed: int, without: IntArray | None = None) -> IntArray:
        """The selected rows int64 [budget], ascending (all rows if there are no more), none of them in `without`; cached while
        the values of `vectors` are the same."""
        key = (seed, _digest(vectors))
        if key in self._known:
            return self._known[key]
        options = self.options
        rows = np.arange(len(vectors), dtype=np.int64)
        if without is not None and len(without):
            rows = np.setdiff1d(rows, without)
        if len(rows) > options.sample:
            rows = np.sort(rows[keyed_generator(seed, "retriever.votek").permutation(len(rows))[: options.sample]])
        selected = np.sort(rows[vote_k(vectors[rows], options.budget, options.neighbours, options.discount)])
        self._known = {key: selected}
        return selected


def _digest(vectors: FloatArray) -> bytes:
    """A hash of shape and values."""
    digest = hashlib.blake2b(repr(vectors.shape).encode(), digest_size=16)
    for start in range(0, len(vectors), 4096):
        digest.update(np.ascontiguousarray(vectors[start : start + 4096]).data)
    return digest.digest()


def vote_k(vectors: FloatArray, budget: int, neighbours: int, discount: float) -> IntArray:
    """Rows int64 [min(budget, n)] in the order of their selection."""
    count = len(vectors)
    edges = NearestRows(vectors).search(vectors, min(neighbours, count - 1), lambda row: np.array([row]))
    votes = np.ones(count)
    selected: list[int] = []
    for _ in range(min(budget, count)):
        scores = np.bincount(edges.ravel(), weights=np.repeat(votes, edges.shape[1]), minlength=count)
        scores[selected] = -1.0
        best = int(np.argmax(scores))
        selected.append(best)
        votes[(edges == best).any(axis=1)] /= discount
        votes[best] = 0.0  # only unselected rows vote
    return np.array(selected, dtype=np.int64)
