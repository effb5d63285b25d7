"""What it saves to keep image features in memory or on disk, and to prepare images in other processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import IdeficsConfig, IdeficsForVisionText2Text

from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.engine.image_cache import ImageFeatureCache
from icltool.engine.preparing import ImagePipeline
from icltool.store.image_features import open_image_features
from icltool.store.workspace import Workspace
from tests.world.recipe.tokenizer import build_tokenizer

pytestmark = pytest.mark.benchmark

IMAGES, ENCODED, PREPARED = 64, 64, 640
BATCH = 32


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return made_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> IdeficsModel:
    return made_model(tmp_path_factory.mktemp("model"))


def made_images(folder: Path) -> list[str]:
    """Photographs' size and detail: JPEG, 640 x 480, 100 KB or so."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        coarse.save(folder / f"{number:03d}.jpg", quality=90)
    return [str(p) for p in sorted(folder.iterdir())]


def made_model(folder: Path) -> IdeficsModel:
    """Idefics' architecture at 224 x 224 with a small vision encoder and perceiver, random weights."""
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    config = IdeficsConfig(
        vocab_size=len(tokenizer) - 2, additional_vocab_size=2, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, cross_layer_interval=1, use_resampler=True,
        vision_config={"embed_dim": 256, "image_size": 224, "patch_size": 14, "num_hidden_layers": 6,
                       "num_attention_heads": 8, "intermediate_size": 1024},
        perceiver_config={"use_resampler": True, "resampler_n_latents": 64, "resampler_depth": 2, "resampler_n_heads": 4,
                          "resampler_head_dim": 32, "qk_layer_norms_perceiver": True},
    )  # fmt: skip
    IdeficsForVisionText2Text(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    IdeficsImageProcessorPil(image_size=224).save_pretrained(folder)
    return IdeficsModel(IdeficsOptions(name="small", path=str(folder), device="cpu"))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def test_encoding_beside_memory_and_disk(
    model: IdeficsModel, paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints milliseconds for an image's features from each place. They are the same; no time is asserted."""
    some = paths[:ENCODED]

    def opened() -> ImageFeatureCache:
        return ImageFeatureCache(
            model, 2**30, disk=open_image_features(Workspace(tmp_path), model.name, model.fingerprint())
        )

    expected = ImageFeatureCache(model, 0).features(some)
    with opened() as cache:
        encoding = _seconds(lambda: cache.features(some))
        memory = _seconds(lambda: cache.features(some))
        closing = _seconds(cache.close)
    with opened() as cache:
        disk = _seconds(lambda: cache.features(some))
        features = cache.features(some)
        assert (cache.hits, cache.from_disk, cache.encoded) == (ENCODED, ENCODED, 0)
    assert all(torch.equal(features[path], expected[path]) for path in some)
    size = features[some[0]].numel() * features[some[0]].element_size()
    with capsys.disabled():
        print()
        for name, seconds in (("encoded, and stored", encoding), ("from disk", disk), ("from memory", memory)):
            print(f"features of {size:,} bytes, {name}: {seconds / ENCODED * 1000:.3f} ms, {encoding / seconds:,.0f} x")
        print(f"closing the file: {closing * 1000:.0f} ms")


def test_workers_beside_one_process(model: IdeficsModel, paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Prints images per second for a device that takes as long for a batch as this process takes to prepare it; a sleep
    stands for it, as it leaves the processor alone."""
    reader = model.image_reader()
    expected = {path: reader(path) for path in paths}
    computing = _seconds(lambda: [reader(path) for path in paths[:BATCH]])
    names = [f"{number}:{paths[number % IMAGES]}" for number in range(PREPARED)]  # each name is another image
    for workers in (0, 2):
        pipeline = ImagePipeline(Renamed(reader), workers, ahead=2 * BATCH)
        pipeline.expect(names)
        starting = _seconds(lambda pipeline=pipeline: _begin(pipeline))
        times = {}
        start = time.perf_counter()
        for low in range(0, PREPARED, BATCH):
            times.update((name, pipeline.take(name)) for name in names[low : low + BATCH])
            time.sleep(computing)
        seconds = time.perf_counter() - start
        pipeline.close()
        assert all(np.array_equal(image, expected[name.partition(":")[2]]) for name, image in times.items())
        with capsys.disabled():
            print(
                f"\n{workers} workers (started in {starting:.1f} s): {PREPARED / seconds:.0f} images/s, of them "
                f"{pipeline.from_workers} from workers; the device alone: {BATCH / computing:.0f} images/s"
            )


def _begin(pipeline: ImagePipeline) -> None:
    """Waits until workers have prepared what they may."""
    while not all(future.done() for future in pipeline._begun.values()):
        time.sleep(0.02)


class Renamed:
    """Reads N:PATH as PATH."""

    def __init__(self, reader: Callable[[str], object]) -> None:
        self.reader = reader

    def __call__(self, name: str) -> object:
        return self.reader(name.partition(":")[2])
