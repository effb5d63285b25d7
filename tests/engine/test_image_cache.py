"""Image features are computed once, and the byte limit holds; workers and the disk change where they come from, only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from icltool.contracts import PreparesImages
from icltool.engine.image_cache import ON_CPU, ImageFeatureCache, open_image_cache
from icltool.errors import ConfigError, DataError
from icltool.store.image_features import ImageFeatureFile, open_image_features
from icltool.store.workspace import Workspace
from tests.engine.readers import NumberReader

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
        result = cache.features([str(i) for i in request])
        assert {path: float(f[0]) for path, f in result.items()} == {str(i): float(i) for i in request}
        assert cache._bytes == len(cache._cached) * BYTES <= room * BYTES
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


class PreparingModel(CountingModel):
    """Encodes what a reader prepares; `most` images fit into memory at once."""

    device = torch.device("cpu")

    def __init__(self, most: int = 1000, reader: Any = None) -> None:
        super().__init__()
        self.most, self.reader = most, reader or NumberReader()
        self.batches: list[int] = []

    def image_reader(self) -> Any:
        return self.reader

    def encode_images(self, prepared: Sequence[Any]) -> list[torch.Tensor]:
        if len(prepared) > self.most:
            raise torch.OutOfMemoryError
        self.batches.append(len(prepared))
        self.encoded += [str(int(p["pixels"][0])) for p in prepared]
        return list(torch.stack([torch.full((10,), float(p["pixels"][0])) for p in prepared]))


class CountingReader(NumberReader):
    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def __call__(self, path: str) -> Any:
        self.read.append(path)
        return super().__call__(path)


def check(cache: ImageFeatureCache, paths: Sequence[str]) -> None:
    assert {path: float(f[0]) for path, f in cache.features(paths).items()} == {path: float(path) for path in paths}


def numbers(*indices: range) -> list[str]:
    return [str(i) for part in indices for i in part]


def test_a_model_that_prepares_images_is_given_prepared_ones() -> None:
    model = PreparingModel()
    assert isinstance(model, PreparesImages)
    cache = ImageFeatureCache(model, 100 * BYTES)
    check(cache, numbers(range(20)))
    assert model.batches == [ON_CPU, ON_CPU, 20 - 2 * ON_CPU]
    check(cache, numbers(range(25)))
    assert (cache.hits, cache.encoded) == (20, 25)


def test_out_of_memory_halves_the_batch_and_reads_no_image_twice() -> None:
    model = PreparingModel(most=3, reader=CountingReader())
    cache = ImageFeatureCache(model, 100 * BYTES, batch_size=16)
    check(cache, numbers(range(20)))
    assert max(model.batches) == 2
    assert sorted(model.reader.read, key=int) == numbers(range(20))
    model.most = 0
    with pytest.raises(ConfigError, match="out of memory while encoding the image 21"):
        cache.features(["21"])


def test_kept_features_hold_no_batch_in_memory() -> None:
    cache = ImageFeatureCache(PreparingModel(), 100 * BYTES)
    for features in cache.features(numbers(range(8))).values():
        assert features.untyped_storage().nbytes() == BYTES


def test_workers_prepare_what_was_announced() -> None:
    with ImageFeatureCache(PreparingModel(), 1000 * BYTES, workers=1) as cache:
        pipeline = cache._pipeline
        assert pipeline is not None
        check(cache, numbers(range(10)))
        cache.expect(numbers(range(5, 200)))
        assert "7" not in pipeline._place, "it is in memory"
        for start in range(0, 200, 20):
            for future in list(pipeline._begun.values()):
                future.result()
            check(cache, numbers(range(start, start + 20)))
        with pytest.raises(DataError, match="bad one cannot be read"):
            cache.features(["bad one"])
        assert pipeline.from_workers > 50
        assert cache.encoded == 200
        assert cache.notes == []


def stored(folder: Path) -> ImageFeatureFile:
    return open_image_features(Workspace(folder), "tiny", "f")


def test_what_an_earlier_run_encoded_comes_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in numbers(range(9)):
        Path(path).write_text(path)
    first, second = PreparingModel(), PreparingModel()
    with ImageFeatureCache(first, 3 * BYTES, disk=stored(tmp_path)) as cache:
        for _ in range(2):
            check(cache, numbers(range(6)))
        assert (cache.hits, cache.from_disk, cache.encoded) == (3, 3, 6)
    with ImageFeatureCache(second, 100 * BYTES, workers=1, disk=stored(tmp_path)) as cache:
        cache.expect(numbers(range(9)))
        assert cache._pipeline is not None
        assert list(cache._pipeline._place) == numbers(range(6, 9)), "what is on disk is not prepared"
        for _ in range(2):
            check(cache, numbers(range(9)))
        assert (cache.hits, cache.from_disk, cache.encoded) == (9, 6, 3)
    assert first.encoded == numbers(range(6))
    assert second.encoded == numbers(range(6, 9))


def test_a_cache_without_room_can_still_use_the_disk(tmp_path: Path) -> None:
    model = PreparingModel()
    assert open_image_cache(model, 0) is None
    assert open_image_cache(object(), 2**20) is None  # type: ignore[arg-type]
    image = tmp_path / "1"
    image.write_text("1")
    named = PreparingModel(reader=_Named())
    cache = open_image_cache(named, 0, "auto", stored(tmp_path))  # type: ignore[arg-type]
    assert cache is not None
    for _ in range(3):
        assert float(cache.features([str(image)])[str(image)][0]) == 1.0
    assert (cache.hits, cache.from_disk, cache.encoded) == (0, 2, 1)
    cache.close()
    assert float(cache.features([str(image)])[str(image)][0]) == 1.0


class _Named(NumberReader):
    def __call__(self, path: str) -> Any:
        return super().__call__(Path(path).name)
