"""Bootstrap confidence intervals over queries that are not independent of one another.

A draw takes whole clusters of queries with replacement. For one seed and one list of clusters the draws are the same
whatever is averaged, so that figures of several methods on the same queries are compared draw by draw.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Draws, and weights, held in memory at a time.
_BLOCK = 4_000_000
_WEIGHTS = 16_000_000
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean with the bounds of its interval; NaN where unknown."""

    mean: float
    low: float
    high: float


def known(value: float | None) -> float:
    """A figure as JSON files have it: NaN for null."""
    return math.nan if value is None else float(value)


def finite(value: float) -> float | None:
    """A plain float as JSON files are to have it: null for what is no finite number."""
    return float(value) if math.isfinite(value) else None


def interval_of(entry: Mapping[str, float | None]) -> Interval:
    """The "mean", "low" and "high" of a JSON object. KeyError where one is missing."""
    return Interval(*(known(entry[side]) for side in ("mean", "low", "high")))


def bootstrap_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Interval:
    """The mean of `values` float64 [n] and its percentile bootstrap interval.

    Whole clusters are drawn with replacement, as many as there are, since queries of one cluster (near-duplicates) are
    not independent; a cluster of None or "" stands for a query on its own. The same arguments give the same numbers.
    Raises ValueError for no values, for clusters of another number, or a level outside (0, 1).
    """
    draws = bootstrap_draws(values, clusters, seed, resamples)
    low, high = quantile_interval(draws, level)
    return Interval(float(np.asarray(values, np.float64).mean()), low, high)


def bootstrap_draws(
    values: ArrayLike, clusters: Sequence[Hashable] | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """float64 [resamples]: the mean of `values` in each draw; see `bootstrap_interval`."""
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"values of shape {numbers.shape}; at least one value is needed")
    members = _cluster_numbers(clusters, len(numbers))
    sums: NDArray[np.float64] = np.bincount(members, weights=numbers).astype(np.float64)
    sizes: NDArray[np.float64] = np.bincount(members).astype(np.float64)
    return _resampled_means(sums, sizes, np.random.default_rng(seed), resamples)


def bootstrap_weights(
    count: int, clusters: Sequence[Hashable] | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> Iterator[NDArray[np.float64]]:
    """How often each of `count` values is in each of the same draws: blocks float64 [r, count], `resamples` rows in all.

    For figures that are no mean of values; mean by these weights is what `bootstrap_draws` gives.
    """
    members = _cluster_numbers(clusters, count)
    total = int(members.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    step = max(1, _WEIGHTS // max(1, count))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, total, size=(rows, total)) + total * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * total).reshape(rows, total)
        yield times[:, members].astype(np.float64)


def quantile_interval(draws: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The bounds that leave (1 - level) / 2 of the draws out on either side. Draws that are no number (a class that none
    of its queries shows, say) are passed over; NaN where none is. ValueError for a level outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    known = draws[np.isfinite(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def two_sided_share(draws: NDArray[np.float64]) -> float:
    """A p-value-like figure for draws of a difference: twice the share of draws on the rarer side of 0, 1 at most.

    Draws of exactly 0 count on both sides, and one draw is added to each, so that the figure is never 0.
    """
    known = draws[np.isfinite(draws)]
    rarer = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2.0 * (rarer + 1) / (len(known) + 1))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Interval:
    """Of a - b for two methods on the same queries in the same order; see `bootstrap_interval`.

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
