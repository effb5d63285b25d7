"""Training through the adapter: the conformance suite, files of fine-tuned weights, exported folders, and the learner."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from icltool_ofa.model import OFAModel, OFAOptions
from safetensors.torch import load_file
from tiny_model import EOS, SIZE, STYLES, load, write_folder

from icltool import Augmentation, ConfigError, Example, FineTuningSet, GenerationOptions, SupportsFineTuning
from icltool.components.tasks import task_named
from icltool.plugin.manager import component
from icltool.testing import QuietProgress, check_fine_tuning, make_examples
from icltool.testing.fine_tuning import evaluation_pixels, fine_tuned_log_probs, zero_shot
from icltool.testing.intervention_learners import InMemoryExamples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("ofa"))


@pytest.fixture
def model(folder: Path) -> OFAModel:
    return load(folder, image_size=SIZE)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    actual = make_examples(tmp_path_factory.mktemp("images"), 12)
    return [replace(e, style=STYLES[k % 3]) for k, e in enumerate(actual)]


def loss_of(model: OFAModel, examples: list[Example], task: str = "caption") -> float:
    """The mean negative log-probability of a target."""
    scores = model.score(zero_shot(model, examples, task), 4)
    return -sum(score.log_prob for score in scores) / len(scores)


@pytest.mark.parametrize("task", ["style", pytest.param("caption", marks=pytest.mark.training)])
def test_it_passes_the_conformance_suite(model: OFAModel, examples: list[Example], tmp_path: Path, task: str) -> None:
    check_fine_tuning(model, examples[:6], tmp_path, load, task=task)


def test_the_recipe_is_the_published_one(model: OFAModel) -> None:
    assert isinstance(model, SupportsFineTuning)
    recipe = model.fine_tuning_recipe("style")
    expected = {"batch_size": 4, "epochs": 3, "lr": 5e-5, "min_lr": 1e-7, "warmup": 0.01, "weight_decay": 0.001}
    assert {name: recipe[name] for name in expected} == expected
    component("learners", "captioner", **recipe)
    assert model.fine_tuning_recipe("inference")["max_target_tokens"] == 30


def test_parts_are_apart_and_cover_the_network(model: OFAModel) -> None:
    parts = model.fine_tuning_parts()

    def part_of(name: str, part: str) -> bool:
        out = [p[1:] for p in parts[part] if p.startswith("!")]
        return name.startswith(tuple(p for p in parts[part] if p[0] != "!")) and not name.startswith(tuple(out) or "!")

    for name, parameter in model.network.named_parameters():
        assert sum(part_of(name, part) for part in ("resnet", "encoder", "decoder", "embeddings")) == 1, name
        assert parameter.requires_grad is False


def test_an_output_of_its_own_belongs_to_the_embeddings(tmp_path: Path) -> None:
    own = load(write_folder(tmp_path, share_decoder_input_output_embed=False), image_size=SIZE)
    assert "decoder.output_projection." in own.fine_tuning_parts()["embeddings"]


def test_images_of_training_are_cut_at_random(model: OFAModel, examples: list[Example]) -> None:
    model.resize_images(64)
    read = model.pixel_reader(Augmentation("random", shorter=16))
    assert read.augmentation.shorter == 64  # what is cut out must be there
    assert read(examples[0].image).shape == (3, 64, 64)
    assert model.fingerprint() != load(Path(model.source), image_size=SIZE).fingerprint()
    with pytest.raises(ConfigError, match="images of 160 pixels"):
        model.resize_images(160)


def test_beams_end_with_the_end_and_score_by_their_mean(model: OFAModel, examples: list[Example]) -> None:
    prompts = zero_shot(model, examples[:2], "caption")
    options = GenerationOptions(6, 5, 1.0, min_new_tokens=1, no_repeat_ngram=3)
    for beams in model.sample_beams(prompts, evaluation_pixels(model, prompts), options):
        assert len({beam.ids for beam in beams}) == 5
        assert all(beam.ids[-1] == EOS and EOS not in beam.ids[:-1] for beam in beams)


def test_images_of_training_are_as_large_as_in_evaluation(folder: Path, examples: list[Example]) -> None:
    """The published images' share of the shorter side is kept for other sizes, by whatever way they are set."""
    other = load(folder, image_size=64)
    assert "shorter" not in other.fine_tuning_recipe("style")
    resized = load(folder, image_size=32)
    resized.resize_images(64)
    for model in (other, resized):
        read = model.pixel_reader(Augmentation("random"))
        assert read.augmentation.shorter == read.shorter == model.settings.shorter > 64
    assert other.pixel_reader(Augmentation("random", shorter=70)).augmentation.shorter == 70


@pytest.mark.training
def test_beams_share_their_image(folder: Path, tmp_path: Path, examples: list[Example]) -> None:
    """The gradients of an image for each beam; an image with a text is encoded once."""
    model = load(write_folder(tmp_path, dropout=0.0), image_size=SIZE)
    model.network.requires_grad_(True)
    prompts = zero_shot(model, examples[:3], "style")
    pixels = evaluation_pixels(model, prompts)
    rows = [0, 0, 2, 0, 1, 2]
    known = [prompts[row] for row in rows]
    known[5] = replace(known[5], text=prompts[0].text)  # another question of the same image
    answers = [[5 + k, 9, EOS][: 1 + k % 3] for k in range(6)]
    seen = []
    with model.network.encoder.register_forward_hook(lambda _, a, out: seen.append(len(out.last_hidden_state))):
        expected = gradients_of(model, model.fine_tuning_batch(known, pixels[rows], answers=answers))
        actual = gradients_of(model, model.fine_tuning_batch(known, pixels, answers=answers, images=rows))
    assert seen == [6, 4]
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="need as many images"):
        model.fine_tuning_batch(known, pixels, answers=answers, images=[3, *rows[1:]])


def test_what_is_cut_keeps_its_end(model: OFAModel, examples: list[Example]) -> None:
    prompts = zero_shot(model, examples[:1], "caption")
    pixels = evaluation_pixels(model, prompts)
    whole = model.fine_tuning_batch(prompts, pixels).tokens.tolist()
    assert len(whole) > 2
    assert model.fine_tuning_batch(prompts, pixels, 2).tokens.tolist() == [whole[0], EOS]
    assert model.fine_tuning_batch(prompts, pixels, len(whole)).tokens.tolist() == whole


def test_a_quoted_caption_is_cleaned(model: OFAModel) -> None:
    question = model.plain_prompt(
        ' does the image describe " A "red" Bar. " in personality Wild?', "a.png", " yes"
    ).text
    assert question == '<s> does the image describe " a red bar " in personality Wild?</s>'


@pytest.mark.training
def test_fine_tuned_weights_stay_in_float32(folder: Path, examples: list[Example], tmp_path: Path) -> None:
    """Read again in bfloat16 it is the model that training in mixed precision left."""
    loaded = load(folder, image_size=SIZE, dtype="bfloat16")
    frozen = (*loaded.fine_tuning_parts()["resnet"], *loaded.fine_tuning_parts()["_image_generation"])
    names = [name for name, _ in loaded.network.named_parameters() if not name.startswith(frozen)]
    generator = torch.Generator().manual_seed(0)
    for name, parameter in loaded.network.named_parameters():
        if name in names:
            parameter.data = parameter.data.float()
            parameter.data += 1e-3 * torch.randn(parameter.shape, generator=generator)
    file = tmp_path / "best.safetensors"
    loaded.save_fine_tuned(file, names, {})
    again = load(file, dtype="bfloat16")
    saved, held = load_file(file), dict(again.network.named_parameters())
    assert set(saved) == set(names)
    assert all(held[name].dtype == torch.float32 and torch.equal(held[name], saved[name]) for name in names)
    assert held["encoder.embed_images.conv1.weight"].dtype == torch.bfloat16
    prompts = zero_shot(loaded, examples[:4], "caption")
    assert again.score(prompts, 4) == loaded.score(prompts, 4)
    search = GenerationOptions(4, 3)
    assert again.generate(prompts, search, 4) == loaded.generate(prompts, search, 4)
    again.network.requires_grad_(True)
    assert all(actual.dtype == held[name].dtype for name, actual in gradients(again, examples).items())


def gradients(model: OFAModel, examples: list[Example]) -> dict[str, torch.Tensor]:
    prompts = zero_shot(model, examples[:3], "caption")
    return gradients_of(model, model.fine_tuning_batch(prompts, evaluation_pixels(model, prompts)))


def gradients_of(model: OFAModel, batch: Any) -> dict[str, torch.Tensor]:
    model.network.zero_grad(set_to_none=True)
    fine_tuned_log_probs(model, batch)[1].sum().backward()
    return {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}


@pytest.mark.training
def test_gradient_checkpointing_gives_the_same_gradients(folder: Path, tmp_path: Path, examples: list[Example]) -> None:
    still = load(write_folder(tmp_path, dropout=0.0), image_size=SIZE)
    still.network.requires_grad_(True).train()
    still.network.encoder.embed_images.eval()
    plain = gradients(still, examples)
    network = still.network
    enable = getattr(network, "activation_checkpointing_enable", network.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    twice = gradients(still, examples)
    assert plain.keys() == twice.keys()
    assert all(torch.allclose(plain[name], twice[name], atol=1e-5) for name in plain)
    assert not [name for name in plain if name.startswith(still.fine_tuning_parts()["_image_generation"])]


@pytest.mark.training
def test_half_precision_beside_trained_float32(folder: Path, model: OFAModel, examples: list[Example]) -> None:
    half = load(folder, image_size=SIZE, dtype="bfloat16")
    for parameter in half.network.decoder.layers.parameters():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    assert loss_of(half, examples[:3]) == pytest.approx(loss_of(model, examples[:3]), rel=0.02)
    actual = gradients(half, examples)
    assert all(gradient.dtype == torch.float32 for gradient in actual.values())
    prompts = zero_shot(half, examples[:2], "caption")
    assert len(half.sample_beams(prompts, evaluation_pixels(half, prompts), GenerationOptions(4, 3))) == 2


def test_settings_are_saved_with_the_weights(folder: Path, examples: list[Example], tmp_path: Path) -> None:
    settings = {"styles": STYLES, "tokenize_style": True, "style_prompt": " in {}", "shorter": 40, "lower_case": False}
    loaded = load(folder, image_size=SIZE, **settings)
    file, whole = tmp_path / "best.safetensors", tmp_path / "whole"
    loaded.save_fine_tuned(file, ["encoder.layer_norm.weight"], {"epochs": 1})
    loaded.export(whole)
    for path in (file, tmp_path, whole):
        again = load(path)
        assert again.settings == loaded.settings
        assert again.prompt("style", [], examples[2]).text == "<s> in <code_2></s>"
    assert load(whole, tokenize_style=False).prompt("style", [], examples[2]).text == "<s> in Wild</s>"
    assert load(file).weights.fine_tuned.about == {"epochs": 1}
    names = {entry.name for entry in whole.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "icltool.json"} <= names
    card = json.loads((whole / "icltool.json").read_text())
    assert (card["schema"], card["version"], card["model"]) == ("icltool.model", 1, "ofa-tiny")


@pytest.mark.training
def test_what_was_fine_tuned_before_is_kept(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    norms = ["encoder.layer_norm.weight", "decoder.layer_norm.weight"]
    one = load(folder, image_size=SIZE)
    for value, (name, source, target) in enumerate(((norms[0], None, first), (norms[1], first, second)), start=2):
        one = one if source is None else load(source)
        one.network.state_dict()[name].fill_(value)
        one.save_fine_tuned(target, [name], {})
    state = load(second).network.state_dict()
    assert [float(state[name].mean()) for name in norms] == [2.0, 3.0]


def test_files_of_other_weights_are_refused(folder: Path, model: OFAModel, tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    other = write_folder(tmp_path / "other", 1)
    load(other, image_size=SIZE).save_fine_tuned(file, ["encoder.layer_norm.weight"], {})
    (other / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes())
    with pytest.raises(ConfigError, match="from other weights"):
        load(file)
    with pytest.raises(ConfigError, match="fine-tuned ofa-tiny, not ofa-base"):
        OFAModel(OFAOptions(name="ofa-base", hub_id="OFA-Sys/ofa-base", path=str(file)))
    model.export(tmp_path / "whole")
    with pytest.raises(ConfigError, match="contains ofa-tiny, not ofa-base"):
        OFAModel(OFAOptions(name="ofa-base", hub_id="OFA-Sys/ofa-base", path=str(tmp_path / "whole")))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.training),
        {"itm": True, "freeze": "resnet"},
        pytest.param({"grad_checkpointing": True}, marks=pytest.mark.training),
        pytest.param({"dtype": "bfloat16"}, marks=pytest.mark.training),
    ],
    ids=["plain", "itm", "checkpointing", "half"],
)
def test_a_few_steps_of_the_learner_lower_the_loss(
    folder: Path, examples: list[Example], tmp_path: Path, options: dict[str, Any]
) -> None:
    options = dict(options)
    dtype = options.pop("dtype", "float32")
    model = load(folder, image_size=SIZE, dtype=dtype)
    before = loss_of(model, examples[:8], "style")
    data = FineTuningSet(
        model=model,
        task=task_named("style").model_copy(update={"max_new_tokens": 8}),
        examples=InMemoryExamples(examples[:8]),
        development=InMemoryExamples(examples[8:]),
        metric=lambda name: component("metrics", name),
        generation=GenerationOptions(4, 2),
    )
    learner = component("learners", "captioner", epochs=5, lr=3e-3, select="loss", shorter=48, **options)
    outcome = learner.tune(data, tmp_path / "run", 0, QuietProgress())
    assert loss_of(model, examples[:8], "style") < 0.8 * before
    actual = loss_of(load(outcome.checkpoints["last"], dtype=dtype), examples[:8], "style")
    assert actual == pytest.approx(loss_of(model, examples[:8], "style"), rel=1e-4)
