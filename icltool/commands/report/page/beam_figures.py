"""Figures of generated sequences by which one judges, before training, whether they are worth it. All are JSON-ready.

The arrays are those of `SequenceFile.arrays`: Q anchors, B beams, K demonstrations; anchors with fewer beams are padded with
-1 and NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icltool.commands.report.page.content import (
    BeamGains,
    BeamSpread,
    Diversity,
    Hubness,
    Spread,
    StepGains,
    Worse,
)
from icltool.contracts import Float64Array, IntArray
from icltool.results.intervals import finite

Arrays = Mapping[str, NDArray[Any]]
#: Bars of a histogram.
BARS = 40
#: How many of the most chosen demonstrations are listed, and what share of all examples the largest hubs are.
LISTED, HUBS = 20, 0.01


def gains_by_beam(arrays: Arrays) -> BeamGains:
    """Value of the finished sequence less that without demonstrations, by beam: {"edges": [n + 1], "beams": [one entry per
    beam, best first]}. Histograms share their edges."""
    gains = arrays["values"] - arrays["base_value"][:, None]
    edges = _edges(gains)
    beams: list[BeamSpread] = [{"beam": b + 1, **_distribution(gains[:, b], edges)} for b in range(gains.shape[1])]
    return {"edges": edges.tolist(), "beams": [entry for entry in beams if entry["anchors"]]}


def gains_by_step(arrays: Arrays) -> StepGains:
    """The gain of each search step of the best beams: {"edges": [n + 1], "steps": [one entry per step]}."""
    steps = arrays["step_scores"][:, 0]
    edges = _edges(steps)
    return {
        "edges": edges.tolist(),
        "steps": [{"step": k + 1, **_distribution(steps[:, k], edges)} for k in range(steps.shape[1])],
    }


def worse_than_none(arrays: Arrays) -> Worse:
    """Anchors whose best beam has a lower value than no demonstrations: {"anchors", "worse", "share"}."""
    gains = (arrays["values"][:, 0] - arrays["base_value"])[arrays["beam_count"] > 0]
    known = gains[np.isfinite(gains)]
    worse = int((known < 0).sum())
    return {"anchors": len(known), "worse": worse, "share": worse / len(known) if len(known) else None}


def hubness(arrays: Arrays, index_size: int | None) -> Hubness:
    """How unevenly examples are chosen, over all beams.

    "skewness" is that of how often each example is chosen (the hubness of Radovanović et al., JMLR 11, 2010), over the index
    set of `index_size` examples, or where that is not known over those that were candidates. "share" of a listed example is
    that of the anchors that have it in a beam.
    """
    ids = arrays["icd_ids"]
    chosen, counts = np.unique(ids[ids >= 0], return_counts=True)
    pool = np.unique(arrays["candidates"][arrays["candidates"] >= 0])
    anchors = _anchors_of(ids, chosen)
    order = np.lexsort((chosen, -counts))
    hubs = max(1, round(HUBS * len(pool))) if len(chosen) else 0
    times, examples = np.unique(counts, return_counts=True)
    return {
        "of": "all beams",
        "distinct": len(chosen),
        "chosen": int(counts.sum()),
        "pool": len(pool),
        "index": index_size,
        "skewness": _skewness(counts, max(index_size or len(pool), len(chosen))),
        "top_share": float(counts[order[:hubs]].sum() / counts.sum()) if hubs else None,
        "times": [[int(t), int(n)] for t, n in zip(times, examples, strict=True)],
        "top": [
            {"id": int(chosen[p]), "count": int(counts[p]), "share": float(anchors[p] / len(ids))}
            for p in order[:LISTED].tolist()
        ],
    }


def diversity(arrays: Arrays) -> Diversity:
    """Whether beams differ: how many sequences there are and how many differ in ids and order; "overlap", the share of
    demonstrations that two beams of an anchor have in common, and "per_anchor", how many different demonstrations its beams
    have, both means over anchors."""
    ids, beams = arrays["icd_ids"], arrays["beam_count"].tolist()
    sequences = [tuple(beam) for anchor, count in zip(ids.tolist(), beams, strict=True) for beam in anchor[:count]]
    overlaps, distinct = [], []
    for anchor, count in zip(ids.tolist(), beams, strict=True):
        sets = [set(beam) for beam in anchor[:count]]
        if sets:
            distinct.append(len(set().union(*sets)))
        if len(sets) > 1:
            overlaps.append(_mean(len(a & b) / max(len(a), len(b)) for a, b in combinations(sets, 2)))
    return {
        "sequences": len(sequences),
        "distinct": len(set(sequences)),
        "overlap": _mean(overlaps) if overlaps else None,
        "per_anchor": _mean(distinct) if distinct else None,
    }


def _anchors_of(ids: IntArray, chosen: IntArray) -> IntArray:
    """int64 [N]: how many anchors have each of `chosen` int64 [N], ascending, in some beam; ids int64 [Q, B, K]."""
    anchors, *_ = np.nonzero(ids >= 0)
    pairs = np.unique(anchors * max(1, len(chosen)) + np.searchsorted(chosen, ids[ids >= 0]))
    counts: IntArray = np.bincount(pairs % max(1, len(chosen)), minlength=len(chosen)).astype(np.int64)
    return counts


def _edges(values: Float64Array) -> Float64Array:
    """Bounds of BARS bars of the same width around all finite values; 0 is one of them, so that no bar is of gains and
    losses."""
    known = values[np.isfinite(values)]
    low, high = (min(0.0, float(known.min())), max(0.0, float(known.max()))) if len(known) else (0.0, 0.0)
    width = (high - low or 1.0) / BARS
    first, last = int(np.floor(low / width)), int(np.ceil(high / width))
    edges: Float64Array = np.arange(first, max(last, first + 1) + 1, dtype=np.float64) * width
    return edges


def _distribution(values: Float64Array, edges: Float64Array) -> Spread:
    known = values[np.isfinite(values)]
    some = len(known) > 0
    q05, median, q95 = np.quantile(known, (0.05, 0.5, 0.95)).tolist() if some else (None, None, None)
    return {
        "counts": np.histogram(known.clip(edges[0], edges[-1]), edges)[0].tolist(),
        "anchors": len(known),
        "mean": float(known.mean()) if some else None,
        "median": median,
        "q05": q05,
        "q95": q95,
        "positive": float((known > 0).mean()) if some else None,
    }


def _skewness(counts: IntArray, size: int) -> float | None:
    """The third standardized moment of how often each of `size` examples is chosen; `counts` are those chosen at all."""
    if not size:
        return None
    every = np.zeros(size)
    every[: len(counts)] = counts
    deviations = every - every.mean()
    spread = float(np.sqrt((deviations**2).mean()))
    return finite(float((deviations**3).mean()) / spread**3) if spread else None


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
