"""Paths go, what is no path stays."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from icltool.commands.export.scrubbing import paths_in, rewrite_header, text_without_paths, without_paths
from icltool.errors import StoreError


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/jane/coco", {}),
        ("C:\\Users\\jane", {}),
        ("~/coco/x", {}),
        ("a/b ratio", {"note": "a/b ratio"}),
        ("read /home/jane/x.json, then go", {"note": "read …, then go"}),
        ("https://example.org/a/b/c", {"note": "https://example.org/a/b/c"}),
        ("lr 1e-5 / 3", {"note": "lr 1e-5 / 3"}),
        ("and/or", {"note": "and/or"}),
        ("clue: {clue} inference:", {"note": "clue: {clue} inference:"}),
    ],
)
def test_texts(text: str, left: dict[str, str]) -> None:
    assert without_paths({"note": text}) == left


@pytest.mark.parametrize(
    ("key", "value", "stays"),
    [
        ("root", "data/coco", False),
        ("image_folder", "../images", False),
        ("model_path", "Salesforce/blip2-opt-2.7b", True),
        ("model_path", "./weights", False),
        ("sequences", "icl-workspace/sequences/x.h5", False),
        ("checkpoint", "best.safetensors", True),
        ("learner", "captioner", True),
    ],
)
def test_keys_that_name_places(key: str, value: str, stays: bool) -> None:
    assert without_paths({"a": {key: value}}) == {"a": {key: value} if stays else {}}
    assert paths_in({"a": [{key: value}]}) == (set() if stays else {value})


names = st.text(string.ascii_lowercase, min_size=3, max_size=8)


@given(st.lists(names, min_size=2, max_size=4), st.integers(0, 4))
def test_no_absolute_path_survives(parts: list[str], depth: int) -> None:
    path = "/" + "/".join(parts)
    value: Any = [path, {"x": path, path: 1}, f"see {path}", f"`{path}`", f"({path})", f"a={path}", 3]
    for _ in range(depth):
        value = {"k": [value]}
    assert path not in json.dumps(without_paths(value))
    assert path not in text_without_paths(f"# card\n\nfrom {path}\n")


def test_a_header_is_rewritten_and_no_number_moves(tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(5, dtype=torch.bfloat16)}
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(tensors, source, {"icltool": json.dumps({"base": "/x/y", "n": 1}), "format": "pt"})
    rewrite_header(source, target, lambda header: {**header, "base": ""})
    with safe_open(target, framework="pt") as file:
        assert json.loads(file.metadata()["icltool"]) == {"base": "", "n": 1}
        assert file.metadata()["format"] == "pt"
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor)
    source.write_bytes(source.read_bytes()[:20])
    with pytest.raises(StoreError, match=r"a\.safetensors is truncated"):
        rewrite_header(source, target, dict)
