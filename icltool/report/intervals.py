"""Bootstrap confidence intervals of a mean over queries that are not independent of one another."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Draws held in memory at a time.
_BLOCK = 4_000_000


def bootstrap_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """(mean, low, high): the mean of `values` float64 [n] and its percentile bootstrap interval.

    Whole clusters are drawn with replacement, as many as there are, since queries of one cluster (near-duplicates) are
    not independent; a cluster of None or "" stands for a query on its own. The same arguments give the same numbers.
    Raises ValueError for no values, for clusters of another number, or a level outside (0, 1).
    """
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"values of shape {numbers.shape}; at least one value is needed")
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    members = _cluster_numbers(clusters, len(numbers))
    sums: NDArray[np.float64] = np.bincount(members, weights=numbers).astype(np.float64)
    sizes: NDArray[np.float64] = np.bincount(members).astype(np.float64)
    means = _resampled_means(sums, sizes, np.random.default_rng(seed), resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(numbers.mean()), float(low), float(high)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """(mean, low, high) of a - b for two methods on the same queries in the same order; see `bootstrap_interval`.

    An interval that leaves out 0 says that the methods differ, and is narrower than two intervals side by side.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"shapes {first.shape} and {second.shape}: the methods need the same queries")
    return bootstrap_interval(first - second, clusters, seed, resamples, level)


def _cluster_numbers(clusters: Sequence[Hashable] | None, count: int) -> NDArray[np.int64]:
    """int64 [n]: the number of each value's cluster, 0 to C-1 in order of appearance."""
    if clusters is None:
        return np.arange(count, dtype=np.int64)
    if len(clusters) != count:
        raise ValueError(f"{count} values, {len(clusters)} clusters")
    numbers: dict[Hashable, int] = {}
    keys = ((position,) if key is None or key == "" else (key, "") for position, key in enumerate(clusters))
    return np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, count)


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    count = len(sums)
    means = np.empty(resamples)
    alike = bool((sizes == sizes[0]).all())  # then the number of values in a draw is known beforehand
    step = max(1, _BLOCK // count)
    for start in range(0, resamples, step):
        drawn = rng.integers(0, count, size=(min(step, resamples - start), count))
        drawn_values = count * sizes[0] if alike else sizes[drawn].sum(axis=1)
        means[start : start + step] = sums[drawn].sum(axis=1) / drawn_values
    return means
