"""Comparisons of settings against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from icltool.commands.evaluate import comparing
from icltool.commands.evaluate.judging import Judged
from icltool.results.intervals import bootstrap_draws, bootstrap_interval, paired_difference

CLUSTERS = [f"c{i // 2}" for i in range(40)]


def judged(seed: int, shift: float = 0.0) -> Judged:
    scores = np.random.default_rng(seed).normal(shift, 1.0, 40)
    return Judged(scores, float(scores.mean()), bootstrap_draws(scores, CLUSTERS))


def test_the_interval_over_seeds_is_that_of_the_queries_means() -> None:
    each = [{"m": judged(seed)} for seed in range(3)]
    mean = comparing.over_seeds(each)["m"]
    expected = bootstrap_interval(np.mean([one["m"].scores for one in each], axis=0), CLUSTERS)
    assert (mean.result.mean, mean.result.low, mean.result.high) == pytest.approx(expected, abs=1e-12)
    figures = [one["m"].figure for one in each]
    assert comparing.spread(each, "m") == {
        "sd": pytest.approx(np.std(figures, ddof=1)),
        "min": min(figures),
        "max": max(figures),
    }
    assert comparing.over_seeds([{"m": judged(0)}, {}]) == {}


def test_differences_are_paired() -> None:
    a, b = judged(0, 1.0), judged(1)
    result = comparing.difference(a, b)
    expected = paired_difference(a.scores, b.scores, CLUSTERS)
    assert (result["mean"], result["low"], result["high"]) == pytest.approx(expected, abs=1e-12)
    assert result["p"] == pytest.approx(2 * ((a.draws - b.draws <= 0).sum() + 1) / 2001)
    assert comparing.difference(a, a) == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


@pytest.mark.parametrize(("count", "pairs"), [(2, 1), (6, 15), (7, 6)])
def test_every_pair_of_few_methods_and_the_first_against_many(count: int, pairs: int) -> None:
    one = judged(0)
    methods = {f"m{i}": {"x": one} if i else {"x": one, "y": one} for i in range(count)}
    result = comparing.differences(methods, 4)
    assert len(result) == pairs
    assert {entry["metric"] for entry in result} == {"x"}, "y is not known of the others"
    assert all(entry["a"] == "m0" for entry in result) is (count != 6)
    assert result[0]["shots"] == 4


def test_gains_count_queries() -> None:
    without = Judged(np.array([1.0, 1.0, 1.0, 1.0]), 1.0, bootstrap_draws([1.0] * 4))
    scores = np.array([2.0, 3.0, 0.0, 1.0])
    result = comparing.gains({"m": Judged(scores, 1.5, bootstrap_draws(scores)), "other": without}, {"m": without})
    assert list(result) == ["m"]
    assert [result["m"][kind] for kind in ("better", "worse", "equal", "mean")] == [2, 1, 1, 0.5]
    assert result["m"]["low"] <= 0.5 <= result["m"]["high"]


def test_copies_and_leaks_are_counted() -> None:
    rows = [
        {"answer": "A dog.", "references": ["a dog"], "copied": [4], "icd_ids": [4, 5], "shared": {"question": 2}},
        {"answer": "a cat", "references": ["a dog"], "copied": [5, 6], "icd_ids": [5, 6], "shared": {"text": 1}},
        {"answer": "a cow", "references": ["a cow"], "copied": [], "icd_ids": [7, 8], "shared": {}},
    ]
    assert comparing.copies(rows) == {"answers": 2, "share": pytest.approx(2 / 3), "right": 0.5}
    assert comparing.copies(rows[2:]) == {"answers": 0, "share": 0.0, "right": None}
    assert comparing.leaks(rows) == {"pairs": 6, "image": 0, "group": 0, "question": 2, "text": 1}


def test_orders_are_summed_up() -> None:
    figures = [{"m": 50.0, "n": 1.0}, {"m": 54.0}, {"m": 49.0}]
    result = comparing.order_summary(figures, [["a", "b", "c", "d"], ["a", "x", "c", "d"], ["a", "y", "z", "d"]])
    assert result == {
        "count": 3,
        "metrics": {"m": {"mean": 51.0, "sd": pytest.approx(np.sqrt(7)), "best": 54.0, "worst": 49.0}},
        "changed": 0.5,
    }


def test_what_stands_in_is_compared_with_every_number_of_shots() -> None:
    methods = {
        0: {"zero-shot": {"m": judged(0)}, "live": {"m": judged(1)}, "lora": {"m": judged(2)}},
        1: {"random": {"m": judged(3)}},
        8: {"random": {"m": judged(4)}, "i2i": {"n": judged(5)}},
    }
    result = comparing.across_shots(methods, ["live", "lora"])
    pairs = [(d["a"], d["b"], d["shots"], d.get("a_shots")) for d in result]
    assert pairs == [
        ("live", "lora", 0, None),
        ("live", "zero-shot", 0, None),
        ("lora", "zero-shot", 0, None),
        ("live", "random", 1, 0),
        ("lora", "random", 1, 0),
        ("live", "random", 8, 0),
        ("lora", "random", 8, 0),
    ]
    assert result[5] | comparing.difference(judged(1), judged(4)) == result[5]
    assert comparing.across_shots(methods, []) == []
