"""`--model` takes the folder of a fine-tuned model in place of a name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from icltool.commands.evaluate.options import EvaluateConfig
from icltool.config import adapters
from icltool.config.resolve import resolve
from icltool.errors import ConfigError
from icltool.plugin import Registration
from icltool.plugin.registry import RegisteredComponent, Registry


def trained(folder: Path, fine_tuned: bool = True) -> Path:
    folder.mkdir(parents=True)
    record = {"identity": {"model": "tiny-blip2"}, "provenance": {"fine_tuned": fine_tuned}}
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_a_checkpoint_folder_its_name_in_the_workspace_and_an_exported_folder(tmp_path: Path) -> None:
    checkpoint = trained(tmp_path / "icl" / "checkpoints" / "captioner-shapes-caption-tiny-blip2-0a1b2c3d")
    exported = tmp_path / "mine"
    exported.mkdir()
    (exported / "icltool.json").write_text(json.dumps({"model": "ofa-tiny"}), encoding="utf-8")
    for value, name, folder in (
        (str(checkpoint), "tiny-blip2", checkpoint),
        (checkpoint.name, "tiny-blip2", checkpoint),
        (str(exported), "ofa-tiny", exported),
    ):
        config = EvaluateConfig(workspace=tmp_path / "icl", model=value)
        assert (config.model, config.model_path) == (name, str(folder))
        assert config.model_options()["path"] == str(folder)


def test_other_names_stay_as_they_are(tmp_path: Path) -> None:
    for value in ("tiny-idefics", ""):
        config = EvaluateConfig(workspace=tmp_path, model=value)
        assert (config.model, config.model_path) == (value, None)


def test_other_paths_are_refused_in_one_line(tmp_path: Path) -> None:
    selector = trained(tmp_path / "checkpoints" / "live-shapes-caption", fine_tuned=False)
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(b"")
    for value, fault in (
        (selector, "does not contain a fine-tuned model"),
        (tmp_path / "none", "does not exist"),
        (archive, "unpack it"),
        (selector / "training.json", "name the folder"),
    ):
        with pytest.raises(ConfigError, match=fault):
            resolve("evaluate", EvaluateConfig, {"workspace": tmp_path, "model": str(value)})


def test_a_path_beside_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = trained(tmp_path / "checkpoints" / "captioner")
    with pytest.raises(ConfigError, match="leave out --model-path"):
        resolve("evaluate", EvaluateConfig, {"workspace": tmp_path, "model": str(folder), "model_path": "x"})


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"model_type": "idefics", "architectures": ["IdeficsForVisionText2Text"]}, "idefics-9b"),
        ({"model_type": "idefics2", "architectures": ["Idefics2ForConditionalGeneration"]}, "idefics2-8b"),
        (
            {"model_type": "blip-2", "architectures": ["Blip2ForConditionalGeneration"], "vision_config": {}},
            "blip2-opt-2.7b",
        ),
        ({"model_type": "emu3", "architectures": ["Emu3ForConditionalGeneration"]}, "image-text-to-text"),
        ({"model_type": "gemma3", "architectures": ["Gemma3ForCausalLM"]}, "text-llm"),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "text-llm"),
        (
            {"model_type": "theirs", "architectures": ["TheirsForConditionalGeneration"], "vision_config": {}},
            "image-text-to-text",
        ),
        ({"model_type": "theirs", "architectures": ["TheirsForCausalLM"]}, "text-llm"),
        (
            {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "vision_config": {}},
            "image-text-to-text",
        ),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "text-llm"),
        ({"model_type": "llama"}, "text-llm"),
    ],
)
def test_without_a_name_the_folder_of_weights_says_what_it_holds(content: object, name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = resolve("evaluate", EvaluateConfig, {"model_path": str(tmp_path)})
    assert config.model == name
    named = resolve("evaluate", EvaluateConfig, {"model_path": str(tmp_path), "model": "gpt2"})
    assert (named.model, named.model_path) == ("gpt2", str(tmp_path))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            '{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}',
            "its architecture is t5, which no model",
        ),
        ("[1]", "config.json is malformed: an object was expected"),
        ('{"model_type', "config.json is truncated or malformed"),
        (None, "has no config.json"),
    ],
)
def test_a_folder_that_no_model_reads_is_refused_in_one_line(content: str | None, fault: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=fault) as caught:
        resolve("evaluate", EvaluateConfig, {"model_path": str(tmp_path)})
    assert "\n" not in caught.value.message
    assert resolve("evaluate", EvaluateConfig, {"model_path": str(tmp_path), "model": "gpt2"}).model == "gpt2"


def test_a_folder_that_does_not_exist_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    for path in ("models/nothere", "./nothere", str(tmp_path / "nothere"), "nothere"):
        with pytest.raises(ConfigError, match=f"--model-path {path}: there is no such folder"):
            resolve("evaluate", EvaluateConfig, {"model_path": path})


def test_a_checkpoint_of_the_hub_tells_its_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hub's cache, or by a download that names what failed."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0a1b")
    snapshot = repository / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "idefics2"}')
    config = resolve("evaluate", EvaluateConfig, {"model_path": "some/model"})
    assert (config.model, config.model_name) == ("idefics2-8b", "some/model")
    with pytest.raises(ConfigError, match="--model-path some/other: there is no such folder, and its config"):
        resolve("evaluate", EvaluateConfig, {"model_path": "some/other"})


def test_a_registration_names_the_architectures_that_it_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    own = [RegisteredComponent("models", Registration(n, "a:B", "", model_types=("qwen2_vl",)), n, "1") for n in "ab"]
    monkeypatch.setattr(adapters, "load_registry", lambda: Registry(own[:1], []))
    assert adapters.adapter_of(str(tmp_path)) == ("a", "qwen2_vl")
    monkeypatch.setattr(adapters, "load_registry", lambda: Registry(own, []))
    with pytest.raises(ConfigError, match="a and b read qwen2_vl") as caught:
        adapters.adapter_of(str(tmp_path))
    assert caught.value.hint == "choose one with --model"


def test_the_adapter_that_the_checkpoint_told_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    lines: list[str] = []
    progress: Any = SimpleNamespace(say=lines.append)
    EvaluateConfig(model_path=str(tmp_path)).check_model(progress)
    assert lines == [f"{tmp_path.name}: model_type qwen2_vl, read as --model image-text-to-text"]
    EvaluateConfig(model_path=str(tmp_path), model="qwen2-vl-7b").check_model(progress)
    EvaluateConfig(model="tiny-idefics").check_model(progress)
    assert len(lines) == 1


def test_a_fine_tuned_folder_as_path_needs_no_name(tmp_path: Path) -> None:
    folder = trained(tmp_path / "model")
    assert resolve("evaluate", EvaluateConfig, {"model_path": str(folder)}).model == "tiny-blip2"
