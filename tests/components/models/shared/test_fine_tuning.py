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
from safetensors.torch import load_file

from icltool.commands.export.scrubbing import rewrite_header
from icltool.components.models.blip.blip import BlipModel
from icltool.components.models.blip.blip2 import Blip2Model
from icltool.components.models.blip.instructblip import InstructBlipModel
from icltool.components.models.shared.captioner import CaptionerOptions
from icltool.components.models.shared.fine_tuned import apply_fine_tuned, read_fine_tuned, save_fine_tuned
from icltool.components.models.shared.fine_tuning import resized_positions
from icltool.contracts import Augmentation, Example, GenerationOptions
from icltool.errors import ConfigError, StoreError
from icltool.testing import check_fine_tuning
from icltool.testing.fine_tuning import evaluation_pixels, fine_tuned_log_probs, zero_shot
from tests.components.models import tiny_captioners as tiny
from tests.suites import apart

Folder = Callable[[Callable[[Path], str]], str]
Images = Callable[[str], list[Example]]
FAMILIES = {
    "blip2-opt": (tiny.blip2_opt, Blip2Model),
    "blip2-t5": (tiny.blip2_t5, Blip2Model),
    "instructblip-vicuna": (tiny.instructblip_llama, InstructBlipModel),
    "instructblip-t5": (tiny.instructblip_t5, InstructBlipModel),
    "blip": (tiny.blip, BlipModel),
}


def trained(model: Any, frozen: tuple[str, ...]) -> list[str]:
    """Names of the parameters outside the frozen parts, put into float32 and to be trained."""
    parts = [model.fine_tuning_parts()[part] for part in frozen]
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


@pytest.mark.parametrize("family", apart("external", ["blip2-t5", "instructblip-vicuna"], FAMILIES))
def test_families_can_be_fine_tuned(family: str, folder_of: Folder, images: Images, tmp_path: Path) -> None:
    build, adapter = FAMILIES[family]
    model = adapter(CaptionerOptions(path=folder_of(build), device="cpu"))
    check_fine_tuning(
        model, images("caption")[:6], tmp_path, lambda path: adapter(CaptionerOptions(path=str(path), device="cpu"))
    )


@pytest.mark.parametrize("family", apart("external", ["blip2-t5"], ["blip2-opt", "blip2-t5", "blip"]))
def test_training_lowers_the_loss_and_changes_what_is_trained(
    family: str, folder_of: Folder, images: Images, tmp_path: Path
) -> None:
    build, adapter = FAMILIES[family]
    model = adapter(CaptionerOptions(path=folder_of(build), device="cpu"))
    frozen = ("vit", "language_model") if family != "blip" else ("vit",)
    names = trained(model, frozen)
    assert "vision_model.post_layernorm.weight" in names
    assert not any(n.startswith("vision_model.encoder") for n in names)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    prompts = zero_shot(model, images("caption")[:4], "caption")
    losses = fit(model, model.fine_tuning_batch(prompts, evaluation_pixels(model, prompts)), 8)
    assert losses[-1] < 0.85 * losses[0]
    changed = {n for n, p in model.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed <= set(names)
    # what softmax cannot tell apart (a bias of all keys) has no gradient
    assert len(changed) > 0.7 * len(names)
    model.network.requires_grad_(False)
    file = tmp_path / "best.safetensors"
    model.save_fine_tuned(file, names, {"epochs": 1})
    again = adapter(CaptionerOptions(path=str(tmp_path), device="cpu"))
    assert again.score(prompts, 2) == model.score(prompts, 2)
    assert read_fine_tuned(file).about == {"epochs": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_in_half_precision_train_under_autocast(family: str, folder_of: Folder, images: Images) -> None:
    """A frozen vision transformer in bfloat16, its last LayerNorm in float32; answers are read without autocast, too."""
    build, adapter = FAMILIES[family]
    model = adapter(CaptionerOptions(path=folder_of(build), device="cpu", dtype="bfloat16"))
    trained(model, ("vit", "language_model") if family != "blip" else ("vit",))
    kinds = {p.dtype for p in model.model.vision_model.parameters()}
    assert kinds == {torch.float32, torch.bfloat16}
    prompts = zero_shot(model, images("caption")[:4], "caption")
    pixels = evaluation_pixels(model, prompts)
    losses = fit(model, model.fine_tuning_batch(prompts, pixels), 8, autocast=True)
    assert losses[-1] < losses[0]
    scores = [s.log_prob for s in model.score(prompts, 4)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        actual, _ = fine_tuned_log_probs(model, model.fine_tuning_batch(prompts, pixels))
    assert actual == pytest.approx(scores, abs=0.3)
    options = model.generation_defaults("caption")
    search = GenerationOptions(**{**options, "max_new_tokens": 10, "min_new_tokens": 2})
    assert [b[0].text for b in model.sample_beams(prompts, pixels, search)] == model.generate(prompts, search, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_fine_tuned_weights_stay_in_float32(family: str, folder_of: Folder, images: Images, tmp_path: Path) -> None:
    """A network in bfloat16 whose trained part is in float32: read again it is the model that training left."""
    build, adapter = FAMILIES[family]
    model = adapter(CaptionerOptions(path=folder_of(build), device="cpu", dtype="bfloat16"))
    names = trained(model, ("vit",))
    prompts = zero_shot(model, images("caption")[:4], "caption")
    pixels = evaluation_pixels(model, prompts)
    fit(model, model.fine_tuning_batch(prompts, pixels), 3)
    model.network.requires_grad_(False)
    file = tmp_path / "best.safetensors"
    model.save_fine_tuned(file, names, {})
    again = adapter(CaptionerOptions(path=str(file), device="cpu", dtype="bfloat16"))
    before, after = dict(model.network.named_parameters()), dict(again.network.named_parameters())
    assert all(p.dtype == after[name].dtype and torch.equal(p, after[name]) for name, p in before.items())
    saved = load_file(file)
    assert all(torch.equal(after[name], saved[name]) for name in names)
    assert {after[name].dtype for name in names} == {torch.float32}
    assert any(not torch.equal(p, p.bfloat16().float()) for p in (after[name] for name in names))
    assert again.score(prompts, 4) == model.score(prompts, 4)
    images = [prompt.images[0] for prompt in prompts]
    for one, other in zip(model.image_features(images, 4), again.image_features(images, 4), strict=True):
        assert torch.equal(one, other)
    search = GenerationOptions(8, 3)
    assert again.generate(prompts, search, 4) == model.generate(prompts, search, 4)
    trained(again, ("vit",))
    losses = fit(again, again.fine_tuning_batch(prompts, pixels), 3)
    assert losses[-1] < losses[0]
    again.resize_images(again.image_size + 14)
    assert len(again.score(prompts, 4)) == 4


def test_frozen_weights_in_a_file_stay_in_half_precision(folder_of: Folder, tmp_path: Path) -> None:
    model = Blip2Model(CaptionerOptions(path=folder_of(tiny.blip2_opt), device="cpu", dtype="bfloat16"))
    model.save_fine_tuned(tmp_path / "best.safetensors", [], {})
    again = Blip2Model(CaptionerOptions(path=str(tmp_path), device="cpu", dtype="bfloat16"))
    assert again.network.vision_model.embeddings.position_embedding.dtype == torch.bfloat16


def test_quantized_tensors_take_no_fine_tuned_weights(tmp_path: Path) -> None:
    network, file = torch.nn.Linear(2, 2), tmp_path / "best.safetensors"
    save_fine_tuned(file, network, ["weight"], "some", "", "f00d", {}, {})
    network.weight = torch.nn.Parameter(network.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ConfigError, match=r"weight is torch\.float32 in the file, here torch\.int8"):
        apply_fine_tuned(network, read_fine_tuned(file))


def gradients(model: Any, batch: Any) -> dict[str, torch.Tensor]:
    model.network.zero_grad(set_to_none=True)
    (fine_tuned_log_probs(model, batch)[1] * torch.linspace(-1, 2, len(batch.rows))).sum().backward()
    return {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["blip2-opt", "instructblip-t5", "blip"])
def test_beams_share_their_image(family: str, folder_of: Folder, images: Images) -> None:
    """The gradients of an image for each beam; its own is encoded once."""
    build, adapter = FAMILIES[family]
    model = adapter(CaptionerOptions(path=folder_of(build), device="cpu"))
    model.network.requires_grad_(True)
    prompts = zero_shot(model, images("caption")[:3], "caption")
    pixels = evaluation_pixels(model, prompts)
    rows = [0, 0, 2, 0, 1, 2]
    expanded = [prompts[row] for row in rows]
    answers = [[5 + k, 9, 6 + k][: 1 + k % 3] for k in range(6)]
    seen = []
    with model.network.vision_model.register_forward_hook(
        lambda _, a, k, out: seen.append(len(out[0])), with_kwargs=True
    ):
        expected = gradients(model, model.fine_tuning_batch(expanded, pixels[rows], answers=answers))
        actual = gradients(model, model.fine_tuning_batch(expanded, pixels, answers=answers, images=rows))
    assert seen == [6, 3]
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=1e-4)
    for wrong in ([0, 1], [0, 0, 2, 0, 1, 3], [0, 0, 2, 0, 1, -1]):
        with pytest.raises(ValueError, match="must name one of 3 images for each of 6 prompts"):
            model.fine_tuning_batch(expanded, pixels, answers=answers, images=wrong)


def test_what_is_cut_keeps_its_end_behind_an_encoder(folder_of: Folder, images: Images) -> None:
    for family, ends in (("blip2-t5", True), ("blip2-opt", False)):
        build, adapter = FAMILIES[family]
        model = adapter(CaptionerOptions(path=folder_of(build), device="cpu"))
        prompts = zero_shot(model, images("caption")[:1], "caption")
        pixels = evaluation_pixels(model, prompts)
        whole = model.fine_tuning_batch(prompts, pixels).tokens.tolist()
        cut = model.fine_tuning_batch(prompts, pixels, 2).tokens.tolist()
        assert len(whole) > 2
        assert cut == [whole[0], whole[-1] if ends else whole[1]]
        assert model.fine_tuning_batch(prompts, pixels, len(whole)).tokens.tolist() == whole
        assert (model.fine_tuning_recipe("caption")["max_target_tokens"] == 32) is ends


def test_a_quoted_caption_is_cleaned(folder_of: Folder) -> None:
    model = BlipModel(CaptionerOptions(path=folder_of(tiny.blip), device="cpu"))
    question = model.plain_prompt('does it describe " A "red" Bar. " in personality Wild?', "a.png", "yes").text
    assert 'does it describe " a red bar " in personality Wild?' in question


@pytest.mark.parametrize(
    ("schema", "version", "is_read"),
    [("icltool.fine-tuned", 2, True), ("icltool.tuned", 1, True), ("icltool.fine-tuned", 1, False)],
)
def test_files_of_the_former_schema_are_read(schema: str, version: int, is_read: bool, tmp_path: Path) -> None:
    file, former = tmp_path / "new.safetensors", tmp_path / "former.safetensors"
    save_fine_tuned(file, torch.nn.Linear(2, 2), ["bias"], "blip2", "", "", {"image_size": 42}, {"epochs": 1})
    rewrite_header(file, former, lambda header: {**header, "schema": schema, "version": version})
    if not is_read:
        with pytest.raises(StoreError, match="has version 1 of its schema, not 2"):
            read_fine_tuned(former)
        return
    expected = read_fine_tuned(file)
    assert read_fine_tuned(former) == replace(expected, file=former, digest=read_fine_tuned(former).digest)
    assert torch.equal(load_file(former)["bias"], load_file(file)["bias"])


def test_resized_images_are_read_again(folder_of: Folder, images: Images, tmp_path: Path) -> None:
    """A file of fine-tuned weights and an exported folder bring their size along; fine-tuned again, both trainings are kept."""
    model = Blip2Model(CaptionerOptions(name="blip2", path=folder_of(tiny.blip2_opt), device="cpu"))
    model.resize_images(42)
    prompts = zero_shot(model, images("caption")[:3], "caption")
    assert evaluation_pixels(model, prompts).shape == (3, 3, 42, 42)
    with torch.no_grad():
        model.network.query_tokens += 0.3
    first = tmp_path / "first.safetensors"
    model.save_fine_tuned(first, ["query_tokens"], {})
    model.export(tmp_path / "whole")
    card = json.loads((tmp_path / "whole" / "icltool.json").read_text())
    assert (card["schema"], card["model"], card["adapter"]) == ("icltool.model", "blip2", {"image_size": 42})
    for path in (first, tmp_path / "whole"):
        again = Blip2Model(CaptionerOptions(name="blip2", path=str(path), device="cpu"))
        assert again.image_size == 42
        assert again.score(prompts, 3) == model.score(prompts, 3)
    again = Blip2Model(CaptionerOptions(name="blip2", path=str(first), device="cpu"))
    with torch.no_grad():
        again.network.language_projection.bias += 0.3
    again.save_fine_tuned(tmp_path / "second.safetensors", ["language_projection.bias"], {})
    third = Blip2Model(CaptionerOptions(name="blip2", path=str(tmp_path / "second.safetensors"), device="cpu"))
    assert third.score(prompts, 3) == again.score(prompts, 3)
    assert third.score(prompts, 3) != model.score(prompts, 3)


def test_foreign_and_damaged_cards_are_refused(folder_of: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of(tiny.blip2_opt), tmp_path / "copy")
    card = {"schema": "icltool.model", "version": 1, "model": "blip2-opt-2.7b", "adapter": {}, "about": {}}
    (folder / "icltool.json").write_text(json.dumps(card))
    with pytest.raises(ConfigError, match=r"contains blip2-opt-2\.7b, not blip2"):
        Blip2Model(CaptionerOptions(name="blip2", path=str(folder), device="cpu"))
    for damaged in ("{", json.dumps({**card, "version": 9}), json.dumps({**card, "adapter": 3}), "[]"):
        (folder / "icltool.json").write_text(damaged)
        with pytest.raises(ConfigError, match=r"icltool\.json is damaged, or of another version"):
            Blip2Model(CaptionerOptions(name="blip2", path=str(folder), device="cpu"))


def test_fine_tuned_weights_need_those_they_were_made_from(folder_of: Folder, tmp_path: Path) -> None:
    base = shutil.copytree(folder_of(tiny.blip2_opt), tmp_path / "base")
    file = tmp_path / "tuned.safetensors"
    Blip2Model(CaptionerOptions(name="blip2", path=str(base), device="cpu")).save_fine_tuned(file, ["query_tokens"], {})
    with pytest.raises(ConfigError, match="is a fine-tuned blip2, not other"):
        Blip2Model(CaptionerOptions(name="other", path=str(file), device="cpu"))
    shutil.rmtree(base)
    shutil.copytree(folder_of(tiny.blip2_opt_wider), base)
    with pytest.raises(ConfigError, match="was trained from other weights of blip2"):
        Blip2Model(CaptionerOptions(name="blip2", path=str(file), device="cpu"))


def test_layers_of_the_vision_transformer(folder_of: Folder) -> None:
    layers = Blip2Model(CaptionerOptions(path=folder_of(tiny.blip2_opt), device="cpu")).layer_ids()
    assert layers["vision_model.embeddings.position_embedding"] == 0
    assert layers["vision_model.encoder.layers.0.mlp.fc1.weight"] == 1
    assert layers["vision_model.encoder.layers.1.mlp.fc1.weight"] == 2
    assert layers["vision_model.post_layernorm.weight"] == 3
    assert all(name.startswith("vision_model.") for name in layers)


def test_recipes(folder_of: Folder) -> None:
    model = Blip2Model(CaptionerOptions(path=folder_of(tiny.blip2_opt), device="cpu"))
    assert "image_size" not in model.fine_tuning_recipe("caption")  # images of another size than pre-training's stay
    model.resize_images(224)
    caption, inference = model.fine_tuning_recipe("caption"), model.fine_tuning_recipe("inference")
    assert (caption["lr"], caption["batch_size"], caption["image_size"], caption["freeze"]) == (
        1e-5, 16, 364, ("language_model",),
    )  # fmt: skip
    assert (inference["batch_size"], inference["freeze"]) == (8, ("vit", "language_model"))


def test_unsized_positions_stay_as_they_are() -> None:
    embeddings = torch.randn(1, 1 + 16, 8)
    torch.testing.assert_close(resized_positions(embeddings, 4), embeddings)
    larger = resized_positions(embeddings.bfloat16(), 6)
    assert (larger.shape, larger.dtype) == ((1, 37, 8), torch.bfloat16)


def test_a_batch_needs_an_image_for_each_prompt(folder_of: Folder, images: Images) -> None:
    model = Blip2Model(CaptionerOptions(path=folder_of(tiny.blip2_opt), device="cpu"))
    prompts = zero_shot(model, images("caption")[:2], "caption")
    with pytest.raises(ValueError, match="2 prompts of one image each need as many images, not 1"):
        model.fine_tuning_batch(prompts, evaluation_pixels(model, prompts)[:1])
    with pytest.raises(ValueError, match="exactly one image each"):
        model.fine_tuning_batch([replace(prompts[0], images=())], evaluation_pixels(model, prompts)[:1])
    assert model.pixel_reader(Augmentation()).size == 28


def test_fine_tuned_weights_answer_as_their_best_were_chosen(folder_of: Folder, tmp_path: Path) -> None:
    base = folder_of(tiny.blip2_opt)
    model = Blip2Model(CaptionerOptions(path=base, device="cpu"))
    assert model.generation_defaults("caption")["min_new_tokens"] == 8
    search = {"max_new_tokens": 12, "num_beams": 2, "min_new_tokens": 0, "repetition_penalty": 1.0, "later": 1}
    file = tmp_path / "best.safetensors"
    model.save_fine_tuned(file, ["query_tokens"], {"task": "caption", "generation": search})
    fine_tuned = Blip2Model(CaptionerOptions(path=str(file), device="cpu"))
    fine_tuned.export(tmp_path / "whole")
    for actual in (fine_tuned, Blip2Model(CaptionerOptions(path=str(tmp_path / "whole"), device="cpu"))):
        defaults = dict(actual.generation_defaults("caption"))
        assert {name: defaults.get(name) for name in search} == {**search, "later": None}
        assert actual.generation_defaults("inference") == model.generation_defaults("inference")
