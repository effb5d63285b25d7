"""One demonstration from each cluster of the query's neighbourhood."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from icltool.components.retrievers.options import PoolOptions
from icltool.components.retrievers.pool import Pool, PoolRetriever
from icltool.contracts import Float64Array, IntArray, keyed_generator


class KMeansOptions(PoolOptions):
    """Options of the clusters."""

    iterations: int = Field(20, ge=1, description="maximum number of iterations of k-means")


class KMeansRetriever(PoolRetriever):
    """k-means over the `pool` nearest rows into as many clusters as there are demonstrations; of each cluster the row
    nearest to its centre.

    Auto-CoT (Zhang et al., Automatic chain of thought prompting in large language models, 2023) clusters the whole set
    of questions and gives all queries one set of demonstrations; clustering the query's own neighbourhood keeps them
    relevant to it. Clusters are found by Lloyd's iterations on the normalised vectors (at most `iterations`) from
    centres drawn by k-means++ (Arthur and Vassilvitskii, 2007), keyed by query and seed, in double precision.

    Rows are ordered by similarity to the query: they count as ranked. The k demonstrations are not the first k of a longer
    list.
    """

    name = "kmeans"
    options_model = KMeansOptions
    options: KMeansOptions
    nested = False

    def choose(self, pool: Pool, shots: int, query_id: int, seed: int) -> IntArray:
        """See PoolRetriever."""
        generator = keyed_generator(seed, "retriever.kmeans", query_id)
        return representatives(pool, shots, self.options.iterations, generator)


def representatives(pool: Pool, clusters: int, iterations: int, generator: np.random.Generator) -> IntArray:
    """Positions int64 [clusters] in the pool, ascending: the row nearest to the centre of each cluster.

    Distances to centres are computed from the products of the rows: for the mean c of the rows C,
    |x - c|^2 = |x|^2 - 2 mean(x y) + mean(y z), y and z in C.
    """
    products = np.einsum("id,jd->ij", pool.units, pool.units)
    squares = np.diag(products)
    centres = _draw(np.maximum(squares[:, None] - 2 * products + squares, 0.0), clusters, generator)
    distances = squares[:, None] - 2 * products[:, centres] + squares[centres]
    labels = _assign(distances)
    for _ in range(iterations):
        distances = _distances(products, labels, clusters)
        before, labels = labels, _assign(distances)
        if (labels == before).all():
            break
    distances = _distances(products, labels, clusters)
    nearest = [_nearest(pool, distances[:, c], np.flatnonzero(labels == c)) for c in range(clusters)]
    return np.sort(np.array(nearest, dtype=np.int64))


def _draw(squared: Float64Array, clusters: int, generator: np.random.Generator) -> list[int]:
    """Distinct positions of the first centres: each drawn with a probability in proportion to the squared distance from
    those before it, or uniformly if all these distances are 0."""
    centres = [int(generator.integers(len(squared)))]
    while len(centres) < clusters:
        weights = squared[centres].min(axis=0)
        weights[centres] = 0.0
        if weights.sum() <= 0:
            weights = np.ones(len(squared))
            weights[centres] = 0.0
        steps = np.cumsum(weights)
        row = int(np.searchsorted(steps, generator.random() * steps[-1], side="right"))
        centres.append(min(row, int(np.flatnonzero(weights)[-1])))
    return centres


def _assign(distances: Float64Array) -> IntArray:
    """The nearest centre of each row, int64 [P], ties to the first. A centre without rows takes the row that is farthest
    from its own centre and not alone there, so that no cluster is empty."""
    labels: IntArray = distances.argmin(axis=1).astype(np.int64)
    sizes = np.bincount(labels, minlength=distances.shape[1])
    own = distances[np.arange(len(labels)), labels]
    for empty in np.flatnonzero(sizes == 0).tolist():
        moved = int(np.argmax(np.where(sizes[labels] > 1, own, -np.inf)))
        sizes[labels[moved]] -= 1
        labels[moved], sizes[empty], own[moved] = empty, 1, 0.0
    return labels


def _distances(products: Float64Array, labels: IntArray, clusters: int) -> Float64Array:
    """Squared distances float64 [P, clusters] of the rows from the clusters' means."""
    member = (labels[:, None] == np.arange(clusters)).astype(np.float64)
    member /= member.sum(axis=0)
    across = np.einsum("ij,jc->ic", products, member)
    within = np.einsum("ic,ic->c", across, member)
    squared: Float64Array = np.diag(products)[:, None] - 2 * across + within
    return squared


def _nearest(pool: Pool, distances: Float64Array, members: IntArray) -> int:
    """The member with the least distance, ties to the lowest row."""
    scores = np.full(len(pool), -np.inf)
    scores[members] = -distances[members]
    return pool.best(scores)
