"""Fine-tuning of captioners of transformers: what is trained, what is written, and that it is read again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.contracts import Augmentation, Example, GenerationOptions
from icltool.errors import ConfigError
from icltool.models.blip import BlipModel
from icltool.models.blip2 import Blip2Model
from icltool.models.instructblip import InstructBlipModel
from icltool.models.tuned import read_tuned
from icltool.models.tuning import resized_positions
from icltool.testing import check_tuning
from icltool.testing.tuning import evaluation_pixels, tuned_log_probs, zero_shot
from tests.models import tiny_captioners as tiny

Folder = Callable[[Callable[[Path], str]], str]
Pictures = Callable[[str], list[Example]]
FAMILIES = {
    "blip2-opt": (tiny.blip2_opt, Blip2Model),
    "blip2-t5": (tiny.blip2_t5, Blip2Model),
    "instructblip-vicuna": (tiny.instructblip_llama, InstructBlipModel),
    "instructblip-t5": (tiny.instructblip_t5, InstructBlipModel),
    "blip": (tiny.blip, BlipModel),
}


def trained(model: Any, frozen: tuple[str, ...]) -> list[str]:
    """Names of the parameters outside the frozen parts, put into float32 and to be trained."""
    parts = [model.tuning_parts()[part] for part in frozen]
    names = []
    for name, parameter in model.network.named_parameters():
        held = any(
            any(name.startswith(p) for p in part if p[0] != "!")
            and not any(name.startswith(p[1:]) for p in part if p[0] == "!")
            for part in parts
        )
        parameter.requires_grad_(not held)
        if not held:
            parameter.data = parameter.data.float()
            names.append(name)
    return names


def fit(model: Any, batch: Any, steps: int, autocast: bool = False) -> list[float]:
    """Losses of some steps of AdamW on one batch."""
    optimizer = torch.optim.AdamW([p for p in model.network.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = torch.nn.functional.cross_entropy(model.answer_logits(batch).float(), batch.tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("family", FAMILIES)
def test_families_can_be_tuned(family: str, folder_of: Folder, pictures: Pictures, tmp_path: Path) -> None:
    build, adapter = FAMILIES[family]
    model = adapter(path=folder_of(build), device="cpu")
    check_tuning(model, pictures("caption")[:6], tmp_path, lambda path: adapter(path=str(path), device="cpu"))


@pytest.mark.parametrize("family", ["blip2-opt", "blip2-t5", "blip"])
def test_training_lowers_the_loss_and_changes_what_is_trained(
    family: str, folder_of: Folder, pictures: Pictures, tmp_path: Path
) -> None:
    build, adapter = FAMILIES[family]
    model = adapter(path=folder_of(build), device="cpu")
    frozen = ("vit", "language_model") if family != "blip" else ("vit",)
    names = trained(model, frozen)
    assert "vision_model.post_layernorm.weight" in names
    assert not any(n.startswith("vision_model.encoder") for n in names)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    prompts = zero_shot(model, pictures("caption")[:4], "caption")
    losses = fit(model, model.tuning_batch(prompts, evaluation_pixels(model, prompts)), 8)
    assert losses[-1] < 0.85 * losses[0]
    changed = {n for n, p in model.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed <= set(names)
    # what softmax cannot tell apart (a bias of all keys) has no gradient
    assert len(changed) > 0.7 * len(names)
    model.network.requires_grad_(False)
    file = tmp_path / "best.safetensors"
    model.save_tuned(file, names, {"epochs": 1})
    again = adapter(path=str(tmp_path), device="cpu")
    assert again.score(prompts, 2) == model.score(prompts, 2)
    assert read_tuned(file).about == {"epochs": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_in_half_precision_train_under_autocast(family: str, folder_of: Folder, pictures: Pictures) -> None:
    """A frozen vision transformer in bfloat16, its last LayerNorm in float32; answers are read without autocast, too."""
    build, adapter = FAMILIES[family]
    model = adapter(path=folder_of(build), device="cpu", dtype="bfloat16")
    trained(model, ("vit", "language_model") if family != "blip" else ("vit",))
    kinds = {p.dtype for p in model.model.vision_model.parameters()}
    assert kinds == {torch.float32, torch.bfloat16}
    prompts = zero_shot(model, pictures("caption")[:4], "caption")
    shown = evaluation_pixels(model, prompts)
    losses = fit(model, model.tuning_batch(prompts, shown), 8, autocast=True)
    assert losses[-1] < losses[0]
    scores = [s.log_prob for s in model.score(prompts, 4)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, _ = tuned_log_probs(model, model.tuning_batch(prompts, shown))
    assert found == pytest.approx(scores, abs=0.3)
    options = model.generation_defaults("caption")
    search = GenerationOptions(**{**options, "max_new_tokens": 10, "min_new_tokens": 2})
    assert [b[0].text for b in model.sample_beams(prompts, shown, search)] == model.generate(prompts, search, 4)


def test_resized_pictures_are_read_again(folder_of: Folder, pictures: Pictures, tmp_path: Path) -> None:
    """A file of tuned weights and an exported folder bring their size along; fine-tuned again, both trainings are kept."""
    model = Blip2Model(path=folder_of(tiny.blip2_opt), device="cpu")
    model.resize_images(42)
    prompts = zero_shot(model, pictures("caption")[:3], "caption")
    assert evaluation_pixels(model, prompts).shape == (3, 3, 42, 42)
    with torch.no_grad():
        model.network.query_tokens += 0.3
    first = tmp_path / "first.safetensors"
    model.save_tuned(first, ["query_tokens"], {})
    model.export(tmp_path / "whole")
    card = json.loads((tmp_path / "whole" / "icltool.json").read_text())
    assert (card["schema"], card["model"], card["adapter"]) == ("icltool.model", "blip2", {"image_size": 42})
    for path in (first, tmp_path / "whole"):
        again = Blip2Model(path=str(path), device="cpu")
        assert again.image_size == 42
        assert again.score(prompts, 3) == model.score(prompts, 3)
    again = Blip2Model(path=str(first), device="cpu")
    with torch.no_grad():
        again.network.language_projection.bias += 0.3
    again.save_tuned(tmp_path / "second.safetensors", ["language_projection.bias"], {})
    third = Blip2Model(path=str(tmp_path / "second.safetensors"), device="cpu")
    assert third.score(prompts, 3) == again.score(prompts, 3)
    assert third.score(prompts, 3) != model.score(prompts, 3)


def test_foreign_and_damaged_cards_are_refused(folder_of: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of(tiny.blip2_opt), tmp_path / "copy")
    card = {"schema": "icltool.model", "version": 1, "model": "blip2-opt-2.7b", "adapter": {}, "about": {}}
    (folder / "icltool.json").write_text(json.dumps(card))
    with pytest.raises(ConfigError, match=r"holds blip2-opt-2\.7b, not blip2"):
        Blip2Model(path=str(folder), device="cpu")
    for damaged in ("{", json.dumps({**card, "version": 9}), json.dumps({**card, "adapter": 3}), "[]"):
        (folder / "icltool.json").write_text(damaged)
        with pytest.raises(ConfigError, match=r"icltool\.json is damaged, or of another version"):
            Blip2Model(path=str(folder), device="cpu")


def test_tuned_weights_need_those_they_were_made_from(folder_of: Folder, tmp_path: Path) -> None:
    base = shutil.copytree(folder_of(tiny.blip2_opt), tmp_path / "base")
    file = tmp_path / "tuned.safetensors"
    Blip2Model(path=str(base), device="cpu").save_tuned(file, ["query_tokens"], {})
    with pytest.raises(ConfigError, match="is a fine-tuned blip2, not other"):
        Blip2Model("other", path=str(file), device="cpu")
    shutil.rmtree(base)
    shutil.copytree(folder_of(tiny.blip2_opt_wider), base)
    with pytest.raises(ConfigError, match="was trained from other weights of blip2"):
        Blip2Model(path=str(file), device="cpu")


def test_layers_of_the_vision_transformer(folder_of: Folder) -> None:
    layers = Blip2Model(path=folder_of(tiny.blip2_opt), device="cpu").layer_ids()
    assert layers["vision_model.embeddings.position_embedding"] == 0
    assert layers["vision_model.encoder.layers.0.mlp.fc1.weight"] == 1
    assert layers["vision_model.encoder.layers.1.mlp.fc1.weight"] == 2
    assert layers["vision_model.post_layernorm.weight"] == 3
    assert all(name.startswith("vision_model.") for name in layers)


def test_recipes(folder_of: Folder) -> None:
    model = Blip2Model(path=folder_of(tiny.blip2_opt), device="cpu")
    caption, inference = model.tuning_recipe("caption"), model.tuning_recipe("inference")
    assert (caption["lr"], caption["batch_size"], caption["image_size"], caption["freeze"]) == (
        1e-5, 16, 364, ("language_model",),
    )  # fmt: skip
    assert (inference["batch_size"], inference["freeze"]) == (8, ("vit", "language_model"))


def test_unsized_positions_stay_as_they_are() -> None:
    embeddings = torch.randn(1, 1 + 16, 8)
    torch.testing.assert_close(resized_positions(embeddings, 4), embeddings)
    larger = resized_positions(embeddings.bfloat16(), 6)
    assert (larger.shape, larger.dtype) == ((1, 37, 8), torch.bfloat16)


def test_a_batch_needs_a_picture_for_each_prompt(folder_of: Folder, pictures: Pictures) -> None:
    model = Blip2Model(path=folder_of(tiny.blip2_opt), device="cpu")
    prompts = zero_shot(model, pictures("caption")[:2], "caption")
    with pytest.raises(ValueError, match="2 prompts of one picture each need as many pictures, not 1"):
        model.tuning_batch(prompts, evaluation_pixels(model, prompts)[:1])
    with pytest.raises(ValueError, match="one picture each"):
        model.tuning_batch([replace(prompts[0], images=())], evaluation_pixels(model, prompts)[:1])
    assert model.pixel_reader(Augmentation()).size == 28
