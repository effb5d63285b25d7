"""Every family of captioners is trained under its own recipe, by cross-entropy and by rewards, and is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from icltool.components.models.blip.blip import BlipModel
from icltool.components.models.blip.blip2 import Blip2Model
from icltool.components.models.blip.instructblip import InstructBlipModel
from icltool.components.models.shared.captioner import CaptionerOptions
from icltool.contracts import Example
from icltool.testing.tuners import make_fine_tuning_set
from tests.components.learners.captioner.overlap import metric
from tests.components.learners.captioner.sets import fine_tuned
from tests.components.models import tiny_captioners as tiny
from tests.suites import apart

FAMILIES: dict[str, Any] = {
    "blip2-opt-2.7b": (tiny.blip2_opt, Blip2Model),
    "blip2-flan-t5-xl": (tiny.blip2_t5, Blip2Model),
    "instructblip-flan-t5-xl": (tiny.instructblip_t5, InstructBlipModel),
    "blip-base": (tiny.blip, BlipModel),
}
#: What the recipes would make too long or too large for tiny models.
SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 4, "lr": 3e-3, "schedule": "constant", "image_size": 28}


def test_frozen_layers_are_computed_twice_too(examples: list[Example], tmp_path: Path) -> None:
    """Gradients pass through the frozen language model: its activations are most of the memory."""
    (tmp_path / "base").mkdir()
    folder, counts, files = tiny.blip2_opt(tmp_path / "base"), [], []
    for on in (False, True):
        data = make_fine_tuning_set(
            Blip2Model(CaptionerOptions(name="blip2-opt-2.7b", path=folder, device="cpu")),
            examples[:8],
            examples[8:10],
            metric,
        )
        layer = data.model.network.language_model.model.decoder.layers[1].fc1  # type: ignore[attr-defined]
        calls: list[int] = []
        layer.register_forward_hook(
            lambda module, arguments, actual, calls=calls: calls.append(torch.is_grad_enabled())
        )
        outcome = fine_tuned(data, tmp_path / str(on), **{**SHORT, "epochs": 1, "select": "loss", "captions": "first"},
                        grad_checkpointing=on)  # fmt: skip
        counts.append(sum(calls))
        files.append(load_file(outcome.checkpoints["last"]))
    assert counts == [2, 4]  # two batches
    for name, tensor in files[0].items():
        assert torch.allclose(tensor, files[1][name], atol=1e-5), name


@pytest.mark.parametrize("rewarded", [False, True])
@pytest.mark.parametrize("name", apart("external", [name for name in FAMILIES if "t5" in name], FAMILIES))
def test_a_family(name: str, rewarded: bool, examples: list[Example], tmp_path: Path) -> None:
    save, family = FAMILIES[name]
    (tmp_path / "base").mkdir()
    folder = save(tmp_path / "base")
    loaded = family(CaptionerOptions(name=name, path=folder, device="cpu"))
    data = make_fine_tuning_set(loaded, examples[:12], examples[12:16], metric)
    options = {**SHORT, "freeze": "none"}
    if rewarded:
        del options["freeze"]  # the recipe's: the language model, among others
        options |= {"scst": True, "scst_metric": "overlap", "reward_workers": 0, "epochs": 1, "lr": 1e-3}
    outcome = fine_tuned(data, tmp_path / "out", **options)
    if not rewarded:
        assert outcome.history[-1]["train_loss"] < outcome.history[0]["train_loss"]
    prompts = [data.model.prompt("caption", (), example) for example in examples[12:16]]
    again = family(CaptionerOptions(name=name, path=str(tmp_path / "out" / "last.safetensors"), device="cpu"))
    assert again.score(prompts, 4) == data.model.score(prompts, 4)
    base = family(CaptionerOptions(name=name, path=folder, device="cpu"))
    assert base.score(prompts, 4) != again.score(prompts, 4)
