from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from icltool.components.encoders.open_clip import OpenClipEncoder, OpenClipOptions
from icltool.components.models.shared.weights import packaged_weights
from icltool.contracts import Encoder, TrainableEncoder
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from icltool.testing import check_encoder
from tests.conftest import Scenery

TEXTS = ["a red bar", "", "what colour is the long thing with far more words than there is room for in the context"]


@pytest.fixture(scope="module")
def clip() -> OpenClipEncoder:
    actual: OpenClipEncoder = component("encoders", "tiny-clip", device="cpu")
    return actual


def test_it_keeps_the_contracts(clip: OpenClipEncoder, tmp_path: Path) -> None:
    assert isinstance(clip, Encoder)
    assert isinstance(clip, TrainableEncoder)
    check_encoder(clip, tmp_path)


@pytest.fixture
def custom_text(tmp_path: Path) -> OpenClipEncoder:
    """tiny-clip's configuration as open_clip's CustomTextCLIP, whose text tower is a module of its own."""
    folder = shutil.copytree(packaged_weights("tiny-clip"), tmp_path / "custom")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["custom_text"] = True
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "open_clip_model.safetensors").unlink()
    return OpenClipEncoder(OpenClipOptions(name="custom", path=str(folder), device="cpu", weights=False))


def test_towers_give_the_encoders_features(clip: OpenClipEncoder, scenery: Scenery) -> None:
    paths = [example.image for example in scenery.mixed(3, seed=5)]
    for modality, values, encode in (("image", paths, clip.encode_images), ("text", TEXTS, clip.encode_texts)):
        tower = clip.tower(modality)
        inputs = clip.preprocessor(modality)(values)
        assert len(inputs) == 3
        with torch.no_grad():
            assert np.array_equal(tower(inputs).numpy(), encode(values))


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_tower_holds_what_its_features_depend_on_and_nothing_else(
    modality: str, scenery: Scenery, custom_text: OpenClipEncoder
) -> None:
    values = [e.image for e in scenery.mixed(2, seed=5)] if modality == "image" else TEXTS
    for encoder in (component("encoders", "tiny-clip", device="cpu"), custom_text):
        tower = encoder.tower(modality)
        assert not any(p.requires_grad for p in tower.parameters())
        tower.requires_grad_(True)
        tower.set_grad_checkpointing(True)
        tower(encoder.preprocessor(modality)(values)).square().sum().backward()
        assert all(p.grad is not None for p in tower.parameters())


def test_towers_share_the_encoders_weights(scenery: Scenery) -> None:
    clip = component("encoders", "tiny-clip", device="cpu")
    before = clip.encode_texts(TEXTS)
    with torch.no_grad():
        clip.tower("text").positional_embedding.mul_(2)
    assert not np.allclose(clip.encode_texts(TEXTS), before)


def test_preprocessing_names_the_image_that_cannot_be_read(clip: OpenClipEncoder) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        clip.preprocessor("image")(["/nowhere/gone.png"])


def test_untrained_towers_are_built_alike_without_weights(clip: OpenClipEncoder) -> None:
    bare = component("encoders", "tiny-clip", device="cpu", **clip.build_options())
    assert bare.architecture() == clip.architecture() == json.loads(json.dumps(clip.architecture()))
    assert bare.fingerprint() != clip.fingerprint()
    for modality in ("image", "text"):
        bare.tower(modality).load_state_dict(clip.tower(modality).state_dict(), strict=True)
    assert np.array_equal(bare.encode_texts(TEXTS), clip.encode_texts(TEXTS))


def test_another_preprocessing_or_tokenizer_is_another_architecture(clip: OpenClipEncoder, tmp_path: Path) -> None:
    folder = shutil.copytree(packaged_weights("tiny-clip"), tmp_path / "other")
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.1, 0.1]
    path.write_text(json.dumps(config))
    other = OpenClipEncoder(OpenClipOptions(name="other", path=str(folder), device="cpu"))
    assert other.architecture() != clip.architecture()
    assert other.build_options() == {"weights": False, "path": str(folder)}


def test_a_built_in_architecture_needs_no_file() -> None:
    clip = component("encoders", "vit-b-32", device="cpu", weights=False)
    assert (clip.dim, clip.build_options()) == (512, {"weights": False})
    assert clip.architecture()["preprocessing"]["size"] == [224, 224]
    assert clip.preprocessor("text")(["a cat"]).shape == (1, 77)


def test_an_architecture_that_is_not_built_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no architecture 'hf-hub:some/where'"):
        OpenClipEncoder(OpenClipOptions(name="far", architecture="hf-hub:some/where", weights=False))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """open_clip itself goes on with random weights."""
    folder = shutil.copytree(
        packaged_weights("tiny-clip"), tmp_path / "cut", ignore=shutil.ignore_patterns("*.safetensors")
    )
    with pytest.raises(ConfigError, match="contains no weights"):
        OpenClipEncoder(OpenClipOptions(name="cut", path=str(folder), device="cpu"))


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _layers(file: Path) -> None:
    content = json.loads(file.read_text())
    content["model_cfg"]["text_cfg"]["layers"] = 10**9
    file.write_text(json.dumps(content))


def _mean(file: Path) -> None:
    content = json.loads(file.read_text())
    content["preprocess_cfg"]["mean"] = ["a", 1, 1]
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("tokenizer.json", _pipe, r"tokenizer\.json is not a file"),
        ("open_clip_config.json", lambda file: file.write_text("[1]"), "cannot be loaded from"),
        ("open_clip_config.json", lambda file: file.write_text('{"model_cfg": {}}'), "cannot be loaded from"),
        ("open_clip_config.json", _mean, "cannot be loaded from"),
        ("tokenizer_config.json", lambda file: (file.unlink(), file.mkdir()), "cannot be loaded from"),
        ("open_clip_config.json", _layers, "layers = 1,000,000,000, which is beyond any real model"),
        ("open_clip_model.safetensors", lambda file: file.write_bytes(b"no weights"), "cannot be loaded from"),
        ("tokenizer.json", lambda file: file.write_text('{"version": "1.0", "model": 7}'), "cannot be loaded from"),
    ],
)
def test_damaged_folders_are_one_line(
    name: str, damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(packaged_weights("tiny-clip"), tmp_path / "clip")
    damage(folder / name)
    with pytest.raises(ConfigError, match=message) as caught:
        OpenClipEncoder(OpenClipOptions(name="clip", path=str(folder), device="cpu"))
    assert str(folder) in caught.value.message or "which is beyond any real model" in message
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder = shutil.copytree(packaged_weights("tiny-clip"), tmp_path / "clip")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["dax"] = 10**6
    (folder / "tokenizer.json").write_text(json.dumps(content))
    encoder = OpenClipEncoder(OpenClipOptions(name="clip", path=str(folder), device="cpu"))
    with pytest.raises(ConfigError, match="returned token 1000000, but its model"):
        encoder.encode_texts(["dax"])
