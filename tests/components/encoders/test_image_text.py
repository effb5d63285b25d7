"""Encoders of images and texts of transformers, against their models called by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from icltool.components.encoders.image_text import ImageTextEncoder
from icltool.components.encoders.options import ImageTextOptions
from icltool.errors import ConfigError
from icltool.testing import check_encoder
from tests.components.encoders import tiny_encoders
from tests.components.models import tiny
from tests.components.models.tiny import shared_folder
from tests.conftest import Scenery, Shared

TEXTS = ["a red bar", "What IS it", "a yellow bar and a blue frame and a green block and a red bar and one more"]
FAMILIES = (tiny_encoders.clip, tiny_encoders.siglip, tiny_encoders.siglip2)


def encoder(path: str | Path, **options: Any) -> ImageTextEncoder:
    return ImageTextEncoder(ImageTextOptions(name="both", path=str(path), device="cpu", **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_conforms(family: Callable[[Path], str], shared: Shared, tmp_path: Path) -> None:
    check_encoder(encoder(shared_folder(shared, family)), tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_model(family: Callable[[Path], str], shared: Shared, scenery: Scenery) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = shared_folder(shared, family)
    model = AutoModel.from_pretrained(folder).eval()
    paths = [example.image for example in scenery.mixed(3, seed=2)]
    actual = encoder(folder)
    with torch.inference_mode():
        images = [Image.open(path).convert("RGB") for path in paths]
        expected = model.get_image_features(**AutoImageProcessor.from_pretrained(folder)(images, return_tensors="pt"))
        np.testing.assert_allclose(actual.encode_images(paths), plain(expected), rtol=1e-4, atol=1e-5)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for text, vector in zip(TEXTS, actual.encode_texts(TEXTS), strict=True):
            if family is tiny_encoders.clip:
                tokens = tokenizer(text, truncation=True, max_length=20, return_tensors="pt")
                expected = model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
            else:  # always of full length, without a mask
                tokens = tokenizer(
                    text.lower(), padding="max_length", truncation=True, max_length=20, return_tensors="pt"
                )
                expected = model.get_text_features(tokens["input_ids"])
            np.testing.assert_allclose(vector, plain(expected)[0], rtol=1e-4, atol=1e-5)


def plain(features: Any) -> Any:
    return (features if isinstance(features, torch.Tensor) else features.pooler_output).numpy()


def test_options_are_in_the_fingerprint(shared: Shared) -> None:
    folder = shared_folder(shared, tiny_encoders.clip)
    usual, short, half = encoder(folder), encoder(folder, max_length=4), encoder(folder, dtype="bfloat16")
    assert len({usual.fingerprint(), short.fingerprint(), half.fingerprint()}) == 3
    vectors, rounded = usual.encode_texts(TEXTS), half.encode_texts(TEXTS)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(vectors - rounded).max() < 0.1 * np.abs(vectors).max()
    assert not np.allclose(short.encode_texts(TEXTS[2:]), usual.encode_texts(TEXTS[2:]))


def test_other_models_are_refused(shared: Shared, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contains a qwen2_vl model, which has no common space of images and texts"):
        encoder(shared_folder(shared, tiny.qwen2_vl))
    folder = shutil.copytree(shared_folder(shared, tiny_encoders.clip), tmp_path / "clip")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="contains no weights"):
        encoder(folder)


def test_missing_weights_are_refused(shared: Shared, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(shared_folder(shared, tiny_encoders.clip), tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 of its weights are missing there .*visual_projection"):
        encoder(folder)


def test_a_tokenizer_of_another_model(shared: Shared, tmp_path: Path) -> None:
    import json

    folder = shutil.copytree(shared_folder(shared, tiny_encoders.clip), tmp_path / "clip")
    content = json.loads((folder / "tokenizer.json").read_text())
    token = "\u0120dax"
    content["added_tokens"].append({**content["added_tokens"][0], "id": 10**6, "content": token})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="its tokenizer returned token"):
        encoder(folder).encode_texts([token])
