"""The models' names, and what their registrations bind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from icltool_ofa.model import OFAModel, OFAOptions
from icltool_ofa.plugin import icltool_models
from tiny_model import SIZE, write_folder

from icltool import ConfigError, DataError, read_fine_tuned
from icltool.testing import make_examples

NAMES = ["ofa-tiny", "ofa-medium", "ofa-base", "ofa-large", "ofa-huge", "ofa-distilled", "tiny-ofa"]


def test_each_registration_fits_the_class() -> None:
    actual = {r.name: r for r in icltool_models()}
    assert list(actual) == NAMES
    for name, registration in actual.items():
        assert registration.target == f"{OFAModel.__module__}:{OFAModel.__name__}"
        assert registration.options["name"] == name
        OFAOptions(**registration.options)


def test_listing_imports_no_torch() -> None:
    code = "import sys, icltool_ofa.plugin as p; p.icltool_models(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("ofa-base", "weights of ofa-base are not on this machine", "--model-path OFA-Sys/ofa-base to download them"),
        ("ofa-distilled", "on ModelScope, not on the Hugging Face hub", "--model-path DIR"),
    ],
)
def test_without_weights_the_error_says_where_they_are(
    name: str, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("MODEL_CPK_DIR", "CHECKPOINT_PATH"):
        monkeypatch.delenv(variable, raising=False)
    (registration,) = (r for r in icltool_models() if r.name == name)
    with pytest.raises(ConfigError) as error:
        OFAModel(OFAOptions(**registration.options))
    assert message in error.value.message
    assert hint in error.value.hint
    assert "\n" not in error.value.message + error.value.hint


def test_the_toy_is_the_same_each_time_and_reads_its_own_settings(tmp_path: Path) -> None:
    (registration,) = (r for r in icltool_models() if r.name == "tiny-ofa")
    model, again = (OFAModel(OFAOptions(**registration.options, device="cpu")) for _ in range(2))
    assert model.fingerprint() == again.fingerprint()
    assert model.settings.image_size < 100
    prompts = [model.prompt("caption", [], example) for example in make_examples(tmp_path, 2)]
    assert model.score(prompts, 2) == again.score(prompts, 2)
    file, whole = tmp_path / "best.safetensors", tmp_path / "whole"
    model.network.state_dict()["encoder.layer_norm.weight"].fill_(2.0)
    model.save_fine_tuned(file, ["encoder.layer_norm.weight"], {})
    model.export(whole)
    for path in (file, whole):
        assert OFAModel(OFAOptions(**registration.options, path=str(path), device="cpu")).score(
            prompts, 2
        ) == model.score(prompts, 2)
    assert read_fine_tuned(file).base == ""
    (whole / "model.safetensors").unlink()
    with pytest.raises(DataError, match="has no weights"):
        OFAModel(OFAOptions(**registration.options, path=str(whole), device="cpu"))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("ofa-distilled", "damo/ofa_image-caption_coco_distilled_en"),
        ("ofa-base", "damo/ofa_pretrain_base_en"),
        ("ofa-tiny", "ofa_pretrain_tiny_en"),
        ("ofa-tiny", "ofa-tiny"),
    ],
)
def test_names_of_modelscope_are_found_in_the_folder_of_models(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (registration,) = (r for r in icltool_models() if r.name == name)
    write_folder(tmp_path / folder)
    monkeypatch.setenv("MODEL_CPK_DIR", str(tmp_path))
    model = OFAModel(OFAOptions(**registration.options, device="cpu", image_size=SIZE))
    assert model.source == str(tmp_path / folder)


def test_a_repository_in_the_hub_cache_is_read_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MODEL_CPK_DIR", "CHECKPOINT_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--OFA-Sys--ofa-tiny"
    folder = write_folder(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    (registration,) = (r for r in icltool_models() if r.name == "ofa-tiny")
    model = OFAModel(OFAOptions(**registration.options, device="cpu", image_size=SIZE))
    assert model.source == "OFA-Sys/ofa-tiny"
    model.save_fine_tuned(tmp_path / "best.safetensors", ["encoder.layer_norm.weight"], {})
    assert read_fine_tuned(tmp_path / "best.safetensors").base == "OFA-Sys/ofa-tiny"
    again = OFAModel(OFAOptions(**registration.options, path=str(tmp_path / "best.safetensors"), device="cpu"))
    assert again.settings == model.settings
    (folder / "vocab.json").unlink()
    with pytest.raises(DataError, match=r"has no vocab\.json"):
        OFAModel(OFAOptions(**registration.options, device="cpu"))
