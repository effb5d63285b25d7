"""What is found by comparing settings: methods with each other, seeds, demonstrations with none, and orders."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import TypedDict, cast

import numpy as np

from icltool.commands.evaluate.judging import Judged, Rows
from icltool.contracts.arrays import plain_text
from icltool.contracts.evaluation import Copies, Difference
from icltool.results.intervals import quantile_interval, two_sided_share

#: Up to this many methods every pair is compared; with more, all with the first.
ALL_PAIRS = 6

Figures = Mapping[str, Judged]


class OrderSummary(TypedDict):
    """How figures, by metric, and answers differ between `count` orders of the demonstrations."""

    count: int
    metrics: dict[str, dict[str, float]]
    changed: float


def over_seeds(each: Sequence[Figures]) -> dict[str, Judged]:
    """The mean over seeds, by metric. The draws take the same queries for every seed, so the interval of the mean is a
    bootstrap of clusters of queries over the queries' means; it does not cover other seeds (see `spread`)."""
    return {
        name: Judged(
            np.mean([figures[name].scores for figures in each], axis=0),
            float(np.mean([figures[name].figure for figures in each])),
            np.mean([figures[name].draws for figures in each], axis=0),
        )
        for name in each[0]
        if all(name in figures for figures in each)
    }


def spread(each: Sequence[Figures], name: str) -> dict[str, float]:
    """How the figure of one metric differs between seeds: sample standard deviation, lowest and highest."""
    figures = [by_metric[name].figure for by_metric in each]
    return {"sd": float(np.std(figures, ddof=1)), "min": min(figures), "max": max(figures)}


def differences(methods: Mapping[str, Figures], shots: int, against: Collection[str] = ()) -> list[Difference]:
    """Paired differences a - b of the methods' figures with the same number of shots, by pair and metric: mean, 95 %
    interval, and p, a two-sided share of the draws. Draws are clustered and the same for both methods. Of more than
    ALL_PAIRS methods each is compared with the first, and with those in `against`."""
    names = list(methods)
    pairs = list(combinations(names, 2))
    if len(names) > ALL_PAIRS:
        pairs = [(a, b) for a, b in pairs if a == names[0] or a in against or b in against]
    entries = [
        {"shots": shots, "a": a, "b": b, "metric": metric, **difference(one, methods[b][metric])}
        for a, b in pairs
        for metric, one in methods[a].items()
        if metric in methods[b]
    ]
    return cast("list[Difference]", entries)


def across_shots(methods: Mapping[int, Mapping[str, Figures]], standing_in: Collection[str]) -> list[Difference]:
    """Differences of interventions, whose figures are at 0 shots of `methods`: with each
    other and with zero-shot, and with each method at each number of shots. Entries as in `differences`; `shots` are
    those of b, "a_shots" those of a where they are others. (Of many, with each other: see `differences`.)"""
    without = methods.get(0, {})
    ours = {name: without[name] for name in standing_in if name in without}
    if not ours:
        return []
    entries = differences({**ours, **without}, 0, without.keys() - ours.keys())
    others = [
        {"shots": shots, "a_shots": 0, "a": a, "b": b, "metric": metric, **difference(one, figures[metric])}
        for shots, by_method in sorted(methods.items())
        if shots
        for a, mine in ours.items()
        for b, figures in by_method.items()
        for metric, one in mine.items()
        if metric in figures
    ]
    return entries + cast("list[Difference]", others)


def difference(a: Judged, b: Judged) -> dict[str, float]:
    """{"mean", "low", "high", "p"} of a - b."""
    draws = a.draws - b.draws
    low, high = quantile_interval(draws)
    return {"mean": a.figure - b.figure, "low": low, "high": high, "p": two_sided_share(draws)}


def gains(judged: Figures, without: Figures) -> dict[str, dict[str, float]]:
    """Against the same queries without demonstrations, by metric: how many queries score better, worse and equal, and the
    difference of the figures with its interval."""
    by_metric: dict[str, dict[str, float]] = {}
    for name, one in judged.items():
        if name in without:
            gain = one.scores - without[name].scores
            counts = {"better": int((gain > 0).sum()), "worse": int((gain < 0).sum()), "equal": int((gain == 0).sum())}
            by_metric[name] = {**counts, **difference(one, without[name])}
    return by_metric


def copies(rows: Rows) -> Copies:
    """Answers that repeat the label of one of their demonstrations: how many, their share of all, and the share of them
    that equals one of the query's references (None without copies)."""
    copied = [row for row in rows if row["copied"]]
    right = [plain_text(row["answer"]) in map(plain_text, row["references"]) for row in copied]
    share = sum(right) / len(right) if right else None
    return {"answers": len(copied), "share": len(copied) / len(rows), "right": share}


def leaks(rows: Rows) -> dict[str, int]:
    """How many pairs of query and demonstration there are, and how many share the image, the near-duplicate group, the
    question, or the whole text."""
    kinds = ("image", "group", "question", "text")
    pairs = sum(len(row["icd_ids"]) for row in rows)
    return {"pairs": pairs, **{kind: sum(row["shared"].get(kind, 0) for row in rows) for kind in kinds}}


def order_summary(figures: Sequence[Mapping[str, float]], answers: Sequence[Sequence[str]]) -> OrderSummary:
    """Of the figures by metric and the answers of each order, the method's own first: mean, sample standard deviation,
    best and worst order's figure by metric; the share of queries that some other order answers differently."""
    own, others = answers[0], answers[1:]
    changed = [any(other[q] != answer for other in others) for q, answer in enumerate(own)]
    metrics: dict[str, dict[str, float]] = {}
    for name in figures[0]:
        values = [one[name] for one in figures if name in one]
        if len(values) == len(figures):
            metrics[name] = {
                "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)),
                "best": max(values),
                "worst": min(values),
            }
    return {"count": len(figures), "metrics": metrics, "changed": sum(changed) / len(changed)}
