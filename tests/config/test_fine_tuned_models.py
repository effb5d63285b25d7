"""`--model` takes the folder of a fine-tuned model in place of a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from icltool.commands.evaluate.options import EvaluateConfig
from icltool.config.resolve import resolve
from icltool.errors import ConfigError


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
        ({"model_type": "idefics2", "architectures": ["Idefics2ForConditionalGeneration"]}, "idefics-9b"),
        (
            {"model_type": "blip-2", "architectures": ["Blip2ForConditionalGeneration"], "vision_config": {}},
            "idefics-9b",
        ),
        (
            {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "vision_config": {}},
            "image-text-to-text",
        ),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "text-llm"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "idefics-9b"),
        ({"model_type": "llama"}, "idefics-9b"),
        ([1], "idefics-9b"),
    ],
)
def test_without_a_name_the_folder_of_weights_says_what_it_holds(content: object, name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = resolve("evaluate", EvaluateConfig, {"model_path": str(tmp_path)})
    assert config.model == name
    named = resolve("evaluate", EvaluateConfig, {"model_path": str(tmp_path), "model": "gpt2"})
    assert (named.model, named.model_path) == ("gpt2", str(tmp_path))


def test_a_fine_tuned_folder_as_path_needs_no_name(tmp_path: Path) -> None:
    folder = trained(tmp_path / "model")
    assert resolve("evaluate", EvaluateConfig, {"model_path": str(folder)}).model == "tiny-blip2"
