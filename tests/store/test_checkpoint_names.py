"""What a model is called in tables and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.store.checkpoint_names import checkpoint_name, checkpoint_name_in


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (None, "qwen2-vl-7b"),
        ("", "qwen2-vl-7b"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("/models/qwen-mini", "qwen-mini"),
        ("/models/qwen-mini/", "qwen-mini"),
        ("/gone/runs/mine/checkpoint-500", "mine/checkpoint-500"),
        ("/runs/captioner-shapes/best.safetensors", "captioner-shapes/best"),
        ("/home/a/.cache/huggingface/hub/models--Qwen--Qwen2-VL-2B/snapshots/0123abcd", "Qwen/Qwen2-VL-2B"),
        ("/", "qwen2-vl-7b"),
    ],
)
def test_a_checkpoint_has_the_name_of_its_folder_or_of_the_hub(path: str | None, name: str) -> None:
    assert checkpoint_name("qwen2-vl-7b", path) == name


def test_relative_paths_are_named_by_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mini" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert checkpoint_name("x", "models/mini") == "mini"
    monkeypatch.chdir(tmp_path / "models" / "mini")
    assert checkpoint_name("x", ".") == "mini"
    assert checkpoint_name("x", "deep/..") == "mini"
    assert checkpoint_name("x", "../mini") == "mini"


def test_a_configuration_without_a_model_has_no_name() -> None:
    assert checkpoint_name_in({"model": None, "model_path": None}) is None
    assert checkpoint_name_in({"model": "a", "model_path": "/b/c"}) == "c"
    assert checkpoint_name_in({"model": "a"}) == "a"
