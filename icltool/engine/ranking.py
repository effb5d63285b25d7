"""Choosing the best of many scores so that rounding cannot change the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from icltool.contracts import Float64Array


def best(
    scores: Float64Array, count: int, tolerance: float, settle: Callable[[Sequence[int]], Float64Array]
) -> list[int]:
    """Positions of the `count` largest scores, best first; equal scores by position.

    `scores` float64 [n] may each be off by up to `tolerance` (the larger the batch, the other the rounding). Where that
    could change the choice or its order, `settle(positions)` gives exact scores, and those decide: the answer is the one
    that exact scores of all positions would give. Only contenders within twice the tolerance of a rival are settled.
    """
    order = np.argsort(-scores, kind="stable")
    count = min(count, len(scores))
    if tolerance <= 0 or count == 0:
        return [int(i) for i in order[:count]]
    margin = 2 * tolerance
    threshold = scores[order[count - 1]] - margin
    contenders = [int(i) for i in order if scores[i] >= threshold]
    values = scores[contenders]
    near = np.zeros(len(contenders), dtype=bool)
    close = values[:-1] - values[1:] <= margin
    near[:-1] |= close
    near[1:] |= close
    rivals = [i for i, flag in zip(contenders, near, strict=True) if flag]
    if not rivals:
        return contenders[:count]
    exact = dict(zip(rivals, settle(rivals), strict=True))
    settled = {i: float(exact.get(i, scores[i])) for i in contenders}
    return sorted(contenders, key=lambda i: (-settled[i], i))[:count]
