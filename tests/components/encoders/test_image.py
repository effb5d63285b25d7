"""Encoders of images of transformers, against their models called by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from icltool.components.encoders.image import ImageEncoder
from icltool.components.encoders.options import ImageOptions
from icltool.errors import ConfigError, DataError
from icltool.testing import check_encoder
from tests.components.encoders import tiny_encoders
from tests.components.models.tiny import save, shared_folder
from tests.conftest import Scenery, Shared

#: Tokens in front of the patches: the class token, and registers.
FAMILIES = {tiny_encoders.dinov2: 1, tiny_encoders.dinov3: 4}


def encoder(path: str | Path, **options: Any) -> ImageEncoder:
    return ImageEncoder(ImageOptions(name="eye", path=str(path), device="cpu", **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_conforms(family: Callable[[Path], str], shared: Shared, tmp_path: Path) -> None:
    check_encoder(encoder(shared_folder(shared, family)), tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_model(family: Callable[[Path], str], shared: Shared, scenery: Scenery) -> None:
    from transformers import AutoImageProcessor, AutoModel

    folder = shared_folder(shared, family)
    paths = [example.image for example in scenery.mixed(3, seed=2)]
    images = [Image.open(path).convert("RGB") for path in paths]
    with torch.inference_mode():
        pixels = AutoImageProcessor.from_pretrained(folder)(images, return_tensors="pt")
        output = AutoModel.from_pretrained(folder).eval()(**pixels)
    states = output.last_hidden_state
    by_pooling = {"auto": output.pooler_output, "cls": states[:, 0], "mean": states[:, FAMILIES[family] :].mean(dim=1)}
    encoders = {pooling: encoder(folder, pooling=pooling) for pooling in by_pooling}
    for pooling, expected in by_pooling.items():
        np.testing.assert_allclose(encoders[pooling].encode_images(paths), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert len({e.fingerprint() for e in encoders.values()}) == 3


def test_a_pooling_layer_without_weights_is_not_used(tmp_path: Path, scenery: Scenery) -> None:
    """transformers fills it with random numbers."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    model = tiny_encoders.spread(ViTModel(ViTConfig(**tiny_encoders.VISION), add_pooling_layer=False))
    folder = save(tmp_path, model, processor)
    paths = [example.image for example in scenery.mixed(2, seed=3)]
    vectors = encoder(folder).encode_images(paths)
    assert np.array_equal(vectors, encoder(folder, pooling="cls").encode_images(paths))
    assert np.array_equal(vectors, encoder(folder).encode_images(paths))


def test_an_architecture_without_a_class_token(tmp_path: Path, scenery: Scenery) -> None:
    from transformers import ConvNextConfig, ConvNextImageProcessor, ConvNextModel

    config = ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    folder = save(tmp_path, ConvNextModel(config).eval(), ConvNextImageProcessor(size={"shortest_edge": 384}))
    with pytest.raises(ConfigError, match="has no class token, which pooling=cls reads"):
        encoder(folder, pooling="cls")
    [example] = scenery.mixed(1, seed=4)
    assert encoder(folder).encode_images([example.image]).shape == (1, 20)
    assert encoder(folder, pooling="mean").encode_images([example.image]).shape == (1, 20)


def test_bad_input(shared: Shared) -> None:
    eye = encoder(shared_folder(shared, tiny_encoders.dinov2))
    with pytest.raises(ConfigError, match="'eye' encodes images only") as caught:
        eye.encode_texts(["a cat"])
    assert "minilm" in str(caught.value.hint)
    with pytest.raises(DataError, match=r"gone\.png"):
        eye.encode_images(["/nowhere/gone.png"])
    with pytest.raises(ConfigError, match="does not encode images alone"):
        encoder(shared_folder(shared, tiny_encoders.bert))
