"""The built-in samplers: the conformance suite, and what each one promises beyond it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.retrievers.approximate import IndexOptions
from icltool.components.samplers.image_sim import ImageSimilaritySampler
from icltool.components.samplers.mix import MixOptions, MixSampler
from icltool.components.samplers.random import RandomSampler
from icltool.components.samplers.text_sim import TextSimilaritySampler
from icltool.contracts import IndexSet, QuerySet
from icltool.errors import ConfigError, DataError, IclError
from icltool.plugin.manager import component, load_registry
from icltool.testing import check_sampler, make_anchors, make_index
from tests.commands.evaluate.asking import registered


def mix(random: float, text: float, image: float) -> MixSampler:
    return MixSampler(MixOptions(random=random, text=text, image=image))


@pytest.mark.parametrize("name", ["random", "image-sim", "text-sim", "mix"])
def test_a_built_in_sampler_conforms(name: str) -> None:
    check_sampler(lambda: load_registry().create("samplers", name))


@pytest.mark.parametrize(
    "shares", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.2, 0.5, 0.3), (0.0, 0.5, 0.5)]
)
def test_mix_conforms_with_any_shares(shares: tuple[float, float, float]) -> None:
    check_sampler(lambda: mix(*shares))


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [(ImageSimilaritySampler(IndexOptions()), "image"), (TextSimilaritySampler(IndexOptions()), "text")],
)
def test_similarity_pools_are_the_nearest_rows_in_order(sampler: object, kind: str) -> None:
    index = make_index(150)
    anchors = make_anchors(index, range(0, 150, 7))
    pools = sampler.sample(index, anchors, 20, 0)  # type: ignore[attr-defined]
    vectors = getattr(index, kind).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for position, pool in enumerate(pools):
        scores = np.round(vectors @ vectors[position * 7], 6)
        allowed = np.setdiff1d(np.arange(150), index.leaking_rows(anchors, position))
        expected = sorted(allowed.tolist(), key=lambda row: (-scores[row], row))[:20]
        assert pool.tolist() == expected


def test_random_pools_are_uniform_over_what_does_not_leak() -> None:
    count, size, draws = 30, 5, 3000
    index = IndexSet(np.arange(count), np.arange(count) // 2, np.full(count, -1))
    anchors = QuerySet(np.arange(draws) + 1000, np.full(draws, 3), np.full(draws, -1))
    pools = RandomSampler().sample(index, anchors, size, seed=1)
    for column in range(size):
        seen = np.bincount(pools[:, column], minlength=count)
        assert seen[6] == seen[7] == 0
        expected = draws / (count - 2)
        statistic = ((np.delete(seen, [6, 7]) - expected) ** 2 / expected).sum()
        assert statistic < 67  # chi-square with 27 degrees of freedom exceeds 67 once in 30,000


def test_random_pools_differ_by_seed_and_by_anchor() -> None:
    index = make_index(240)
    anchors = make_anchors(index, range(10))
    first, second = (RandomSampler().sample(index, anchors, 12, seed) for seed in (1, 2))
    assert all((a != b).any() for a, b in zip(first, second, strict=True))
    assert len({tuple(pool) for pool in first.tolist()}) == 10


def test_mix_lists_image_then_text_then_random() -> None:
    index = make_index(240)
    anchors = make_anchors(index, range(0, 240, 11))
    pools = MixSampler(MixOptions()).sample(index, anchors, 16, seed=5)
    by_image = ImageSimilaritySampler(IndexOptions()).sample(index, anchors, 4, 5)
    by_text = TextSimilaritySampler(IndexOptions()).sample(index, anchors, 16, 5)
    assert (pools[:, :4] == by_image).all()
    for pool, texts in zip(pools, by_text, strict=True):
        assert pool[4:8].tolist() == [row for row in texts if row not in pool[:4]][:4]


def test_mix_is_full_although_image_and_text_agree() -> None:
    index = make_index(120)
    same = IndexSet(index.ids, index.image_ids, index.groups, index.image, index.image)
    anchors = make_anchors(same, range(12))
    pools = mix(0.0, 0.5, 0.5).sample(same, anchors, 10, 0)
    assert (pools == ImageSimilaritySampler(IndexOptions()).sample(same, anchors, 10, 0)).all()


@given(st.integers(1, 200), st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(lambda shares: sum(shares) > 0))
@settings(max_examples=200, deadline=None)
def test_mix_numbers_add_up_and_stay_near_the_shares(size: int, parts: list[int]) -> None:
    shares = [part / sum(parts) for part in parts]
    numbers = mix(*shares).numbers(size)
    assert sum(numbers.values()) == size
    for share, number in zip(shares, numbers.values(), strict=True):
        assert abs(number - share * size) < 1 + 1e-6
        assert share > 0 or number == 0


def test_mix_default_is_half_a_quarter_a_quarter() -> None:
    assert MixSampler(MixOptions()).numbers(64) == {"random": 32, "text": 16, "image": 16}


def test_mix_needs_only_what_has_a_share() -> None:
    assert MixSampler(MixOptions()).needs == {"image", "text"}
    assert mix(0.5, 0.5, 0).needs == {"text"}
    assert mix(1, 0, 0).needs == frozenset()


@pytest.mark.parametrize("shares", [{"random": 0.6}, {"random": -0.5, "text": 1.0, "image": 0.5}, {"text": "half"}])
def test_mix_refuses_shares_that_are_none(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="sampler 'mix'"):
        component("samplers", "mix", **shares)


def test_too_small_an_index_set_is_one_clear_line() -> None:
    index = make_index(30)
    with pytest.raises(
        DataError, match=r"anchor \d+: 64 rows are needed, but only \d+ of the index set's 30"
    ) as caught:
        MixSampler(MixOptions()).sample(index, make_anchors(index, [0]), 64, 0)
    assert caught.value.hint


@pytest.mark.parametrize("options", [{"method": "i2i"}, {"method": "mmr", "mmr.pool": 240}, {"method": "t2t>random"}])
def test_a_retrieval_method_is_a_sampler(options: dict[str, Any]) -> None:
    check_sampler(lambda: component("samplers", "retrieved", **options))


def test_a_retriever_reads_the_embeddings_of_its_encoder() -> None:
    index = make_index(60, needs=frozenset({"image", "image@other", "text@words"}))
    anchors = make_anchors(index, [3, 7, 8])
    sampler = component("samplers", "retrieved", method="i2i@other")
    assert sampler.needs == {"image@other"}
    own = replace(index, image=index.embedded["image@other"]), replace(anchors, image=anchors.embedded["image@other"])
    expected = component("samplers", "retrieved", method="i2i").sample(*own, 12, 0)
    assert np.array_equal(sampler.sample(index, anchors, 12, 0), expected)
    assert not np.array_equal(component("samplers", "retrieved", method="i2i").sample(index, anchors, 12, 0), expected)
    both = component("samplers", "retrieved", method="i2i@other+t2t@words", **{"t2t.pool": 20})
    assert both.needs == {"image@other", "text@words"}
    check_sampler(lambda: component("samplers", "retrieved", method="i2i@other+t2t@words"))


def test_what_is_retrieved_is_the_pool() -> None:
    index = make_index(60)
    anchors = make_anchors(index, range(9))
    pools = component("samplers", "retrieved", method="i2i").sample(index, anchors, 12, 0)
    nearest = component("samplers", "image-sim").sample(index, anchors, 12, 0)
    np.testing.assert_array_equal(pools, nearest)
    chain = component("samplers", "retrieved", method="i2i+mmr", **{"mmr.pool": 20, "i2i.index": "exact"})
    alone = component("retrievers", "mmr", pool=20).retrieve(index, anchors, 12, 0)
    np.testing.assert_array_equal(chain.sample(index, anchors, 12, 0), alone)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"method": "i2i", "mmr.pool": 3}, "none of i2i has the option mmr.pool"),
        ({"method": "i2i", "pool": 3}, "none of i2i has the option pool"),
        ({"method": "i3i"}, "unknown retriever 'i3i'"),
        ({"method": "random+surest"}, "surest needs examples and model, which only `icltool evaluate` supports"),
        ({"method": "random+plan"}, "needs the option|missing a required argument"),
    ],
)
def test_what_cannot_be_a_sampler_is_refused(options: dict[str, Any], fault: str) -> None:
    with registered(), pytest.raises(IclError, match=fault):
        component("samplers", "retrieved", **options)
