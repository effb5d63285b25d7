"""Inverted lists: unit vectors grouped around centres, by spherical k-means whose result depends on the data alone.

A float32 matrix product rounds differently with another number of rows or threads, and in k-means one changed assignment
affects all later ones. So close products are computed again in double precision, one row at a time.
"""

from __future__ import annotations

import numpy as np

from icltool.contracts import Float64Array, FloatArray, IntArray

#: Vectors assigned at once.
_ROWS = 16_384
#: The number of best centres compared exactly if they are close; if all of them are close, all centres are compared.
_NEAR = 8


def rounding_error(dim: int) -> float:
    """An upper bound of the rounding error of a float32 inner product of unit vectors of `dim` values, in any order of its
    terms: D half-units in the last place of |x| |y| = 1, doubled, with a margin for vectors whose length is only nearly 1.
    """
    return (dim + 8) * 2.0**-23


def spherical_kmeans(units: FloatArray, start: IntArray, iterations: int) -> FloatArray:
    """Unit centres float32 [K, D] of the normalised `units` [n, D] by Lloyd's iterations with cosines, from the rows
    `start` int64 [K] (Dhillon and Modha, Concept decompositions for large sparse text data using clustering, 2001).

    An empty cluster takes the last row of the largest cluster at that point.
    """
    centres: FloatArray = units[start]
    labels = np.full(len(units), -1, dtype=np.int64)
    for _ in range(iterations):
        before, labels = labels, nearest_centres(units, centres)
        if (labels == before).all():
            break
        centres = _means(units, labels, len(start), centres)
    return centres


def _means(units: FloatArray, labels: IntArray, count: int, before: FloatArray) -> FloatArray:
    """The normalised sums of the clusters' rows; of a cluster whose rows cancel out, the centre of `before`."""
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(count + 1))
    sizes = np.diff(ends)
    centres: FloatArray = before.copy()
    for cluster in range(count):
        if sizes[cluster]:
            total = units[order[ends[cluster] : ends[cluster + 1]]].sum(axis=0, dtype=np.float64)
            length = np.sqrt((total * total).sum())
            if length > 0:
                centres[cluster] = total / length
    left = sizes.copy()
    for cluster in np.flatnonzero(sizes == 0).tolist():
        donor = int(np.argmax(left))
        if left[donor] < 2:
            break
        left[donor] -= 1
        centres[cluster] = units[order[ends[donor] + left[donor]]]
    return centres


def nearest_centres(units: FloatArray, centres: FloatArray) -> IntArray:
    """The centre with the largest inner product with each of `units`, int64 [n]; ties to the first."""
    labels = np.empty(len(units), dtype=np.int64)
    for start in range(0, len(units), _ROWS):
        labels[start : start + _ROWS] = best_centres(units[start : start + _ROWS], centres, 1)[:, 0]
    return labels


def best_centres(units: FloatArray, centres: FloatArray, count: int) -> IntArray:
    """The `count` centres with the largest inner products with each of `units`, int64 [n, count], ascending by number; ties
    to the first centres. Each answer depends on its row alone.
    """
    import faiss

    if count >= len(centres):
        return np.tile(np.arange(len(centres), dtype=np.int64), (len(units), 1))
    width = min(count + _NEAR, len(centres))
    near, labels = faiss.knn(units, centres, width, metric=faiss.METRIC_INNER_PRODUCT)
    close = 2 * rounding_error(centres.shape[1])
    best: IntArray = np.sort(labels[:, :count], axis=1)
    for row in np.flatnonzero(near[:, count - 1] - near[:, count] <= close).tolist():
        enough = width == len(centres) or near[row, count - 1] - near[row, -1] > close
        candidates = np.sort(labels[row]) if enough else np.arange(len(centres))
        products = exact_products(centres[candidates], units[row])
        best[row] = np.sort(candidates[np.argsort(-products, kind="stable")[:count]])
    return best


def exact_products(vectors: FloatArray, query: FloatArray) -> Float64Array:
    """Inner products float64 [n] of float32 vectors with one; each depends on the two alone."""
    products: Float64Array = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    return products
