"""Image features are computed once, and the byte limit holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icltool.engine.image_cache import ImageFeatureCache

BYTES = 40  # ten float32


class CountingModel:
    """Features say which image they are of; every encoding is counted."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def image_features(self, paths: Sequence[str], batch_size: int) -> list[torch.Tensor]:
        self.encoded += paths
        return [torch.full((10,), float(path)) for path in paths]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=12), st.integers(0, 12))
def test_every_request_is_answered_rightly_within_the_limit(requests: list[list[int]], room: int) -> None:
    model = CountingModel()
    cache = ImageFeatureCache(model, room * BYTES)
    for request in requests:
        found = cache.features([str(i) for i in request])
        assert {path: float(f[0]) for path, f in found.items()} == {str(i): float(i) for i in request}
        assert cache._bytes == len(cache._kept) * BYTES <= room * BYTES
    assert cache.encoded == len(model.encoded)
    assert cache.hits + cache.encoded == sum(len(set(r)) for r in requests)


def test_with_room_each_image_is_encoded_once() -> None:
    model = CountingModel()
    cache = ImageFeatureCache(model, 100 * BYTES)
    for request in (["1", "2"], ["2", "3", "3"], ["1"]):
        cache.features(request)
    assert model.encoded == ["1", "2", "3"]


def test_the_least_recently_used_goes_first() -> None:
    model = CountingModel()
    cache = ImageFeatureCache(model, 2 * BYTES)
    for request in (["1"], ["2"], ["1"], ["3"], ["1"], ["2"]):
        cache.features(request)
    assert model.encoded == ["1", "2", "3", "2"]
