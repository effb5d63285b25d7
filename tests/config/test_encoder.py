"""The encoder that a user names: registered, or any that a path has."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.embed.options import EmbedConfig
from icltool.components.encoders.locating import kind_of
from icltool.components.models.shared.weights import packaged_weights
from icltool.config.encoder import chosen_encoder, name_of
from icltool.errors import ConfigError, PluginError
from icltool.plugin.manager import component, load_registry
from tests.components.encoders import tiny_encoders
from tests.components.models.tiny import shared_folder
from tests.conftest import Shared

KINDS = {
    tiny_encoders.clip: "image-text-encoder",
    tiny_encoders.siglip: "image-text-encoder",
    tiny_encoders.siglip2: "image-text-encoder",
    tiny_encoders.dinov2: "image-encoder",
    tiny_encoders.dinov3: "image-encoder",
    tiny_encoders.bert: "text-encoder",
}


@pytest.mark.parametrize("family", KINDS)
def test_a_folder_is_enough(family: Callable[[Path], str], shared: Shared) -> None:
    folder = shared_folder(shared, family)
    assert kind_of("any", Path(folder)) == KINDS[family]
    config = EmbedConfig(encoder_path=Path(folder))
    assert config.encoder == Path(folder).name
    encoder = config.chosen_encoder().build(device="cpu")
    assert (encoder.name, encoder.dim) == (config.encoder, {"clip": 16}.get(family.__name__, 32))
    assert EmbedConfig(encoder="mine", encoder_path=Path(folder)).chosen_encoder().build(device="cpu").name == "mine"


def test_a_folder_of_open_clip_and_a_file(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packaged_weights("tiny-clip"), tmp_path / "my clip"))
    assert EmbedConfig(encoder_path=folder).encoder == "my_clip"
    assert chosen_encoder("mine", str(folder), {}).component == "open-clip"
    assert chosen_encoder("tiny-clip", str(folder), {}).component == "tiny-clip"
    file = folder / "open_clip_model.safetensors"
    assert EmbedConfig(encoder_path=file).encoder == "vit-l-14"
    with pytest.raises(ConfigError, match="is a file, which does not tell its architecture") as caught:
        chosen_encoder("mine", str(file), {})
    assert "--encoder-option architecture=NAME" in str(caught.value.hint)
    made = chosen_encoder("mine", str(file), {"architecture": "ViT-B-32"})
    assert (made.component, made.options["path"]) == ("open-clip", str(file))


def test_names_of_the_hub_and_of_open_clip() -> None:
    assert name_of("google/siglip2-base-patch16-224") == "siglip2-base-patch16-224"
    assert EmbedConfig(encoder_path=Path("ViT-B-16/laion2b_s34b_b88k")).encoder == "ViT-B-16-laion2b_s34b_b88k"
    chosen = chosen_encoder("b16", "ViT-B-16/laion2b_s34b_b88k", {})
    assert chosen.component == "open-clip"
    assert chosen.options == {
        "name": "b16",
        "architecture": "ViT-B-16",
        "pretrained": "laion2b_s34b_b88k",
        "download": True,
    }
    with pytest.raises(ConfigError, match="open_clip has no weights 'laion3b' of ViT-B-16") as caught:
        chosen_encoder("b16", "ViT-B-16/laion3b", {}).build(device="cpu")
    assert "laion2b_s34b_b88k" in str(caught.value.hint)


def test_a_path_that_only_permits_the_download() -> None:
    for name, path in (("vit-b-32", "ViT-B-32-quickgelu/openai"), ("dinov2", "facebook/dinov2-large")):
        assert EmbedConfig(encoder=name, encoder_path=Path(path)).identity() == EmbedConfig(encoder=name).identity()
    other = EmbedConfig(encoder="dinov2", encoder_path=Path("facebook/dinov2-small"))
    assert other.identity()["encoder_path"] == "facebook/dinov2-small"


def test_registered_encoders_say_where_their_weights_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MODEL_CPK_DIR", "CHECKPOINT_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("icltool.components.encoders.locating.cached_file", lambda *_: None)
    for name in ("siglip2", "dinov2", "dinov3", "minilm", "multilingual-e5"):
        with pytest.raises(ConfigError, match=f"weights of encoder '{name}' are not on this machine") as caught:
            chosen_encoder(name, None, {}).build(device="cpu")
        hub_id = load_registry().get("encoders", name).registration.options["hub_id"]
        assert f"--encoder-path {hub_id} to download them" in str(caught.value.hint)


def test_registered_encoders_are_found_among_the_users_models(
    tmp_path: Path, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shared_folder(shared, tiny_encoders.bert), tmp_path / "multilingual-e5-base")
    monkeypatch.setenv("MODEL_CPK_DIR", str(tmp_path))
    registered = component("encoders", "multilingual-e5", device="cpu")
    [plain] = component("encoders", "multilingual-e5", device="cpu", prefix="").encode_texts(["query: a red bar"])
    assert (registered.encode_texts(["a red bar"])[0] == plain).all()


def _foreign(folder: Path) -> None:
    tiny_encoders.write(folder / "config.json", {"model_type": "wav2vec2"})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: None, r"config\.json is missing"),
        (_foreign, "describes a model of neither images nor texts"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json cannot be read"),
    ],
)
def test_folders_of_no_encoder(write: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        chosen_encoder("mine", str(tmp_path), {})
    assert "\n" not in str(caught.value)


def test_wrong_names(shared: Shared, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="unknown encoder 'dino'"):
        chosen_encoder("dino", None, {})
    with pytest.raises(ConfigError, match="'a/b' cannot name an encoder"):
        chosen_encoder("a/b", str(tmp_path), {})
    with pytest.raises(ConfigError, match=r"gone does not exist"):
        chosen_encoder("mine", str(tmp_path / "gone"), {})
    folder = shared_folder(shared, tiny_encoders.dinov2)
    with pytest.raises(ConfigError, match=r"'vit-l-14' reads weights of another kind .* for image-encoder") as caught:
        chosen_encoder("vit-l-14", folder, {})
    assert "leave --encoder out" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="encoder 'open-clip': no weights are named"):
        chosen_encoder("open-clip", None, {}).build(device="cpu")
    with pytest.raises(ConfigError, match="encoder 'text-encoder' needs a path"):
        chosen_encoder("text-encoder", None, {}).build(device="cpu")


def test_what_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("no network\nin the tests")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with (
        pytest.warns(match="downloading nobody/no-such-encoder"),
        pytest.raises(
            ConfigError, match="cannot be loaded from nobody/no-such-encoder: there is no such folder"
        ) as caught,
    ):
        chosen_encoder("far", "nobody/no-such-encoder", {})
    assert caught.value.message.endswith("no network")


def test_open_clip_logs_nothing_before_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken.pt"
    file.write_bytes(b"no weights")
    before = logging.root.manager.disable
    for path in (tmp_path / "gone", file):
        with pytest.raises(ConfigError):
            chosen_encoder("vit-b-32", str(path), {}).build(device="cpu")
    assert "ERROR" not in "".join(capfd.readouterr())
    assert logging.root.manager.disable == before
