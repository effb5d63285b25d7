"""The arithmetic of LIVE's shift, its file, and what it refuses."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file

from icltool.components.interventions.files import VERSION, read_intervention, save_intervention
from icltool.components.interventions.shift import ShiftVectors, fused_rescaled, rescaled, shifted
from icltool.components.interventions.stored import StoredOptions
from icltool.errors import ConfigError, StoreError

TENSORS = {"vectors": torch.ones(4, 128), "alphas": torch.full((4,), 0.5)}


def test_a_state_moves_towards_the_vector_and_keeps_its_norm() -> None:
    actual = shifted(torch.tensor([[3.0, 0.0]]), torch.tensor([0.0, 4.0]))
    assert actual.tolist() == [[pytest.approx(3 * 3 / 5), pytest.approx(3 * 4 / 5)]]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_norms_and_dtypes_are_kept_whatever_the_sizes(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    scale = 10 ** float(torch.empty(()).uniform_(-2, 2, generator=generator))
    states = (scale * torch.randn(2, 3, 16, generator=generator)).to(dtype)
    actual = shifted(states, torch.randn(16, generator=generator))
    assert actual.dtype == dtype
    assert actual.shape == states.shape
    norms = (actual.float().norm(dim=-1), states.float().norm(dim=-1))
    assert torch.allclose(*norms, rtol=2e-2 if dtype != torch.float32 else 1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_the_way_of_gpus_gives_the_same_and_the_same_gradients(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    moved, norm = torch.randn(2, 3, 16, generator=generator), torch.rand(2, 3, 1, generator=generator)
    gradients = []
    for way in (rescaled, fused_rescaled):
        with torch.inference_mode():
            way(moved, norm)
        leaf = moved.clone().requires_grad_()
        actual = way(leaf, norm)
        gradients.append((actual.detach(), *torch.autograd.grad((actual**3).sum(), leaf)))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not fused_rescaled(torch.zeros(1, 16), torch.ones(1, 1)).any()


def test_large_states_in_half_precision_do_not_overflow() -> None:
    states = torch.full((1, 4096), 1000.0, dtype=torch.float16)  # their squares are beyond float16
    actual = shifted(states, torch.zeros(4096))
    assert torch.equal(actual, states)


def test_a_state_of_zeros_stays_one() -> None:
    actual = shifted(torch.zeros(1, 4), torch.ones(4))
    assert actual.tolist() == [[0, 0, 0, 0]]
    assert not math.isnan(float(shifted(torch.full((1, 4), 1e6), torch.full((4,), -1e6)).sum()))


@pytest.fixture
def file(tiny_model: Any, tmp_path: Path) -> Path:
    path = tmp_path / "last.safetensors"
    save_intervention(path, "live", tiny_model.base_model(), {"shots": 8, "dataset": "shapes"}, TENSORS)
    return path


def test_a_file_comes_back_and_is_known_by_its_content(file: Path, tiny_model: Any, tmp_path: Path) -> None:
    stored = read_intervention(file)
    assert stored.base == tiny_model.base_model()
    assert stored.about == {"shots": 8, "dataset": "shapes"}
    assert all(torch.equal(stored.tensors[name], tensor) for name, tensor in TENSORS.items())
    for number in range(5):
        copy = tmp_path / f"{number}.safetensors"
        save_intervention(copy, "live", tiny_model.base_model(), {"dataset": "shapes", "shots": 8}, TENSORS)
        assert read_intervention(copy).digest == stored.digest
    save_intervention(
        copy, "live", tiny_model.base_model(), {"shots": 8, "dataset": "shapes"}, {**TENSORS, "alphas": torch.ones(4)}
    )
    assert read_intervention(copy).digest != stored.digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sites": 32}, ["layers: 32", "layers: 4", "not for tiny-idefics"]),
        ({"width": 4096}, ["hidden size: 4096", "hidden size: 128"]),
        ({"weights": "123456789abc", "name": "idefics-9b"}, ["other weights", "those of idefics-9b", "123456789abc"]),
    ],
)
def test_another_model_is_refused_in_one_line(
    tiny_model: Any, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    base = replace(tiny_model.base_model(), **changes)
    shapes = {"vectors": torch.ones(base.sites, base.width), "alphas": torch.ones(base.sites)}
    save_intervention(tmp_path / "x.safetensors", "live", base, {}, shapes)
    vectors = ShiftVectors(StoredOptions(method="live", file=tmp_path / "x.safetensors"))
    for attempt in (lambda: vectors.check(tiny_model), lambda: vectors.applied(tiny_model).__enter__()):
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert all(word in caught.value.message for word in [*words, "x.safetensors"])
        assert "\n" not in caught.value.message
        assert "icltool train live" in str(caught.value.hint)
        assert ("--model-path" if base.name == "tiny-idefics" else "--model idefics-9b") in str(caught.value.hint)


def test_another_precision_or_prompt_format_is_no_other_model(file: Path, tiny_model: Any) -> None:
    from icltool.components.interventions.files import template_remark
    from icltool.plugin.manager import component

    other = component("models", "tiny-idefics", device="cpu", dtype="bfloat16", template="live")
    vectors = ShiftVectors(StoredOptions(method="live", file=file))
    vectors.check(other)
    with vectors.applied(other):
        assert other.score([other.prompt("caption", (), _example())], 1)
    assert "another prompt format" in template_remark(read_intervention(file), other)
    assert template_remark(read_intervention(file), tiny_model) == ""


def _example() -> Any:
    from icltool.contracts import Example

    return Example(1, "", 1, "a dax blick", "a dax blick", ("a dax blick",))


def test_what_is_not_an_intervention_file_is_one_clear_line(file: Path, tiny_model: Any, tmp_path: Path) -> None:
    text, cut, other, old, odd = (tmp_path / f"{n}.safetensors" for n in ("text", "cut", "other", "old", "odd"))
    text.write_text("these are no vectors")
    cut.write_bytes(file.read_bytes()[:-8])
    save_file({"weight": torch.ones(2)}, other)
    header = {"schema": "icltool-intervention", "version": str(VERSION + 1), "method": "live"}
    save_file({"weight": torch.ones(2)}, old, header)
    save_file({"weight": torch.ones(2)}, odd, {**header, "version": str(VERSION), "base": "{}", "about": "{}"})
    for path, words in (
        (text, "not an intervention file: it is truncated or not a safetensors file"),
        (cut, "not an intervention file: it is truncated or not a safetensors file"),
        (other, "not an intervention file: it contains other weights"),
        (old, f"has schema version {VERSION + 1}"),
        (odd, "its header is damaged"),
        (tmp_path / "none", "does not exist"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(StoreError, match=words) as caught:
            ShiftVectors(StoredOptions(method="live", file=path))
        assert str(path) in caught.value.message
        assert "\n" not in caught.value.message
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(StoreError, match="it is not a regular file"):
        ShiftVectors(StoredOptions(method="live", file=fifo))
    with pytest.raises(StoreError, match="written by `icltool train live`, not for method icv-pca"):
        ShiftVectors(StoredOptions(method="icv-pca", file=file))


@pytest.mark.parametrize(
    "tensors",
    [
        {"vectors": torch.ones(4, 128)},
        {"vectors": torch.ones(3, 128), "alphas": torch.ones(4)},
        {"vectors": torch.ones(4, 128), "alphas": torch.ones(4, 1)},
    ],
)
def test_a_file_without_its_tensors_is_damaged(tensors: Any, tiny_model: Any, tmp_path: Path) -> None:
    save_intervention(tmp_path / "x.safetensors", "live", tiny_model.base_model(), {}, tensors)
    with pytest.raises(StoreError, match=r"is damaged: its tensor '(alphas|vectors)'"):
        ShiftVectors(StoredOptions(method="live", file=tmp_path / "x.safetensors"))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(number: float, tiny_model: Any, tmp_path: Path) -> None:
    tensors = {**TENSORS, "alphas": torch.tensor([0.1, number, 0.1, 0.1])}
    save_intervention(tmp_path / "x.safetensors", "live", tiny_model.base_model(), {}, tensors)
    with pytest.raises(StoreError, match="contains numbers that are not finite"):
        ShiftVectors(StoredOptions(method="live", file=tmp_path / "x.safetensors"))


def test_a_file_is_written_whole_or_not_at_all(file: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(StoreError, match="disk is full"):
        save_intervention(file, "live", tiny_model.base_model(), {}, TENSORS)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    assert json.dumps(read_intervention(file).about)
