"""Bootstrap intervals against their definition, known limits, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.results import intervals
from icltool.results.intervals import (
    bootstrap_draws,
    bootstrap_interval,
    bootstrap_weights,
    paired_difference,
    quantile_interval,
    two_sided_share,
)


def test_close_to_the_normal_interval_for_independent_values() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 2000)
    mean, low, high = bootstrap_interval(values, seed=1)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert mean == pytest.approx(values.mean(), abs=1e-12)
    assert low == pytest.approx(mean - half, abs=0.08 * half)
    assert high == pytest.approx(mean + half, abs=0.08 * half)


def test_clusters_widen_the_interval_as_they_should() -> None:
    """Values that are equal within clusters of ten hold a tenth of the information."""
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=100), 10)
    clusters = [f"scene {i // 10}" for i in range(1000)]
    _, low, high = bootstrap_interval(values, clusters)
    _, plain_low, plain_high = bootstrap_interval(values)
    assert (high - low) / (plain_high - plain_low) == pytest.approx(np.sqrt(10), rel=0.1)


def test_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    clusters = [i // 4 for i in range(200)]
    hits = 0
    for trial in range(200):
        values = np.repeat(rng.normal(size=50), 4) + rng.normal(size=200)
        _, low, high = bootstrap_interval(values, clusters, seed=trial, resamples=400)
        hits += low <= 0.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The definition: draw clusters, put their values together, take the mean; in blocks as at once."""
    rng = np.random.default_rng(3)
    members = [rng.normal(size=size) for size in (1, 5, 2, 9, 3)]
    values, clusters = np.concatenate(members), np.repeat(np.arange(5), [len(m) for m in members]).tolist()
    draws = np.random.default_rng(7).integers(0, 5, size=(500, 5))
    means = [np.concatenate([members[i] for i in draw]).mean() for draw in draws]
    expected = (values.mean(), *np.quantile(means, [0.05, 0.95]))
    for block in (4_000_000, 11):
        monkeypatch.setattr(intervals, "_BLOCK", block)
        result = bootstrap_interval(values, clusters, seed=7, resamples=500, level=0.9)
        np.testing.assert_allclose(result, expected, atol=1e-12)


def test_values_without_a_cluster_stand_alone() -> None:
    values = np.random.default_rng(4).normal(size=60)
    alone = bootstrap_interval(values)
    assert bootstrap_interval(values, [""] * 60) == alone
    assert bootstrap_interval(values, [None] * 60) == alone
    assert bootstrap_interval(values, list(range(60))) == alone
    assert bootstrap_interval(values, ["one"] * 60) == pytest.approx((values.mean(),) * 3)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(5).normal(size=50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(6)
    difficulty = rng.normal(0, 5, 300)
    a, b = difficulty + rng.normal(0.5, 1, 300), difficulty + rng.normal(0, 1, 300)
    mean, low, high = paired_difference(a, b)
    assert mean == pytest.approx(a.mean() - b.mean())
    assert 0 < low < mean < high
    _, a_low, a_high = bootstrap_interval(a)
    assert high - low < 0.5 * (a_high - a_low)
    assert paired_difference(b, a)[0] == pytest.approx(-mean)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 5)), min_size=1, max_size=40))
def test_bounds_lie_within_the_values(pairs: list[tuple[float, int]]) -> None:
    values = [v for v, _ in pairs]
    mean, low, high = bootstrap_interval(values, [c for _, c in pairs], resamples=50)
    slack = 1e-6 * (1 + max(map(abs, values)))
    assert min(values) - slack <= low <= high <= max(values) + slack
    assert min(values) - slack <= mean <= max(values) + slack


@pytest.mark.parametrize(
    ("values", "clusters", "level"),
    [([], None, 0.95), ([1.0], ["a", "b"], 0.95), ([1.0], None, 1.0), ([[1.0]], None, 0.9)],
)
def test_nonsense_is_refused(values: list, clusters: list | None, level: float) -> None:
    with pytest.raises(ValueError, match=r"value|level"):
        bootstrap_interval(values, clusters, level=level)


def test_pairs_of_different_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="same queries"):
        paired_difference([1.0, 2.0], [1.0])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 4)), min_size=1, max_size=30), st.integers(1, 40))
def test_means_by_weights_are_the_draws(pairs: list[tuple[float, int]], block: int) -> None:
    """In blocks of any size."""
    values, clusters = np.array([v for v, _ in pairs]), [c for _, c in pairs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "_WEIGHTS", block * len(pairs))
        blocks = list(bootstrap_weights(len(values), clusters, seed=3, resamples=70))
    weights = np.concatenate(blocks)
    assert weights.shape == (70, len(values))
    assert len(blocks) == -(-70 // block)
    means = weights @ values / weights.sum(axis=1)
    np.testing.assert_allclose(means, bootstrap_draws(values, clusters, seed=3, resamples=70), atol=1e-9)


def test_the_share_of_draws_on_the_rarer_side() -> None:
    draws = np.concatenate([np.full(990, 1.0), np.full(9, -1.0), [np.nan]])
    assert two_sided_share(draws) == pytest.approx(2 * 10 / 1000)
    assert two_sided_share(-draws) == two_sided_share(draws)
    assert two_sided_share(np.zeros(10)) == 1.0
    assert two_sided_share(np.ones(1999)) == pytest.approx(0.001)


def test_equal_methods_differ_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    shares = [two_sided_share(bootstrap_draws(rng.normal(size=60), seed=i, resamples=300)) for i in range(300)]
    assert 0.02 < np.mean(np.array(shares) < 0.05) < 0.1


def test_draws_that_are_no_number_are_passed_over() -> None:
    draws = np.array([np.nan, 1.0, 2.0, 3.0, np.nan])
    assert quantile_interval(draws, 0.5) == (1.5, 2.5)
    assert np.isnan(quantile_interval(np.array([np.nan]))).all()
