"""BLIP-2 with OPT and Flan-T5 against plain full forward passes and transformers' own `generate`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from icltool.components.models.blip.blip2 import Blip2Model
from icltool.components.models.shared.captioner import CaptionerOptions
from icltool.contracts import Example, GenerationOptions, HasGenerationDefaults
from icltool.errors import ConfigError, DataError
from icltool.testing import check_model
from tests.components.models import tiny_captioners as tiny
from tests.components.models.captioner_twins import pixels, prefixed_inputs, prefixed_twin
from tests.suites import apart

Folder = Callable[[Callable[[Path], str]], str]
Images = Callable[[str], list[Example]]
FAMILIES = (tiny.blip2_opt, tiny.blip2_t5)


@pytest.fixture(scope="module", params=apart("external", [tiny.blip2_t5], FAMILIES), ids=["opt", "t5"])
def model(request: pytest.FixtureRequest, folder_of: Folder) -> Blip2Model:
    return Blip2Model(CaptionerOptions(name="blip2", path=folder_of(request.param), device="cpu"))


@pytest.fixture(scope="module")
def opt(folder_of: Folder) -> Blip2Model:
    return Blip2Model(CaptionerOptions(name="blip2", path=folder_of(tiny.blip2_opt), device="cpu"))


@pytest.mark.parametrize("task", apart("external", ["vqa"], ["caption", "vqa"]))
def test_blip2_conforms(task: str, model: Blip2Model, images: Images) -> None:
    check_model(model, images(task), task=task, twin=prefixed_twin(model, model.source))


def test_prompts_are_the_published_ones(opt: Blip2Model, folder_of: Folder, images: Images) -> None:
    """Image tokens, the start token, `a photo of`, and a caption that ends with a line break; all as the processor has it."""
    example = replace(images("caption")[0], label="A red: bar!")
    prompt = opt.prompt("caption", [], example)
    assert (prompt.text, prompt.target) == ("<image></s>a photo of", " a red bar\n")
    image = torch.zeros(3, 28, 28, dtype=torch.uint8)
    processed = opt.processor(images=[image], text=["a photo of a red bar\n"], return_tensors="pt")["input_ids"]
    tokens = opt._tokens([prompt], with_target=True)[0]
    assert tokens.text + tokens.target == processed[0].tolist()
    t5 = Blip2Model(CaptionerOptions(path=folder_of(tiny.blip2_t5), device="cpu"))
    prompt = t5.prompt("caption", [], example)
    assert (prompt.text, prompt.target) == ("<image>a photo of</s>", " a red bar</s>")
    processed = t5.processor(images=[image], text=["a photo of"], return_tensors="pt")["input_ids"]
    tokens = t5._tokens([prompt], with_target=True)[0]
    assert tokens.text == processed[0].tolist()
    assert tokens.target == t5.tokenizer("a red bar")["input_ids"]


def test_tasks(opt: Blip2Model, images: Images) -> None:
    query = replace(images("vqa")[0], question="what <image> is it", style="Happy")
    assert opt.prompt("vqa", [], query).text == "<image></s>Question: what < image> is it Short answer:"
    assert opt.prompt("inference", [], query).text == "<image></s>clue: what < image> is it inference:"
    assert opt.prompt("inference-choice", [], query) == opt.prompt("inference", [], query)
    assert "personality Happy." in opt.prompt("style", [], query).text
    assert opt.clean("vqa", " red Question: what") == "red"
    assert opt.clean("caption", " a red bar\na photo of") == "a red bar"


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_equal_those_of_transformers(beams: int, model: Blip2Model, images: Images) -> None:
    """With its own `generate` over one batch of prompts of one length."""
    prompts = [model.prompt("caption", [], example) for example in images("caption")[:4]]
    inputs = prefixed_inputs(model, model.source)
    rows = [inputs(p, p.text) for p in prompts]
    ids = torch.cat([row["input_ids"] for row in rows])
    options = {} if not model.target_apart else {"decoder_start_token_id": model._decoder_start()}
    output = model.model.generate(
        pixels(model.source, tuple(p.images[0] for p in prompts)), ids, torch.ones_like(ids), max_new_tokens=8,
        num_beams=beams, pad_token_id=model._pad, suppress_tokens=[model.placeholder], **options,
        **({"length_penalty": 1.0} if beams > 1 else {}),
    )  # fmt: skip
    expected = model.tokenizer.batch_decode(
        output[:, 0 if model.target_apart else ids.shape[1] :], skip_special_tokens=True
    )
    if not model.target_apart and output.shape[1] <= 8:  # releases that give the answer alone
        expected = model.tokenizer.batch_decode(output, skip_special_tokens=True)
    assert model.generate(prompts, GenerationOptions(8, beams, 1.0), 4) == expected


def test_the_published_search(model: Blip2Model, images: Images) -> None:
    """5 beams, 8 tokens at least and no line break before, repeated tokens penalised: against the plain twin."""
    assert isinstance(model, HasGenerationDefaults)
    options = GenerationOptions(**{**model.generation_defaults("caption"), "max_new_tokens": 12})
    assert (options.num_beams, options.min_new_tokens, options.repetition_penalty) == (5, 8, 1.15)
    prompts = [model.prompt("caption", images("caption")[5:6], e) for e in images("caption")[:2]]
    twin = prefixed_twin(model, model.source)
    answers = model.generate(prompts, options, 2)
    assert answers == [twin.answer(p, options) for p in prompts]
    if not model.target_apart:  # what the other would answer in any case
        assert answers != model.generate(prompts, replace(options, repetition_penalty=1.0, min_new_tokens=0), 2)
    assert model.generation_defaults("vqa") == {}


def test_placeholders_are_counted(opt: Blip2Model, images: Images) -> None:
    """transformers would leave the image out without a word."""
    prompt = opt.prompt("caption", [], images("caption")[0])
    for text in ("</s>a photo of", "<image>" + prompt.text):
        with pytest.raises(DataError, match=r"placeholder tokens for 1 images, which need 3"):
            opt.score([replace(prompt, text=text)], 1)
        with pytest.raises(DataError, match="placeholder tokens"):
            opt.generate([replace(prompt, text=text)], GenerationOptions(4), 1)


def test_prompts_without_images_are_read_too(model: Blip2Model, images: Images) -> None:
    demonstration = images("vqa")[0]
    prompts = [model.prompt("vqa", [], query) for query in (replace(demonstration, image=""), demonstration)]
    alone = [model.score([p], 1)[0].log_prob for p in prompts]
    assert [s.log_prob for s in model.score(prompts, 2)] == pytest.approx(alone, abs=1e-4)
    features = dict(zip([demonstration.image], model.image_features([demonstration.image], 1), strict=True))
    assert [s.log_prob for s in model.score(prompts, 2, features)] == pytest.approx(alone, abs=1e-4)
    assert features[demonstration.image].shape == (tiny.QUERIES, 32)


def test_another_size_of_images(folder_of: Folder, images: Images) -> None:
    """Resized position embeddings are those that transformers interpolates; images of that size are read."""
    small = Blip2Model(CaptionerOptions(path=folder_of(tiny.blip2_opt), device="cpu"))
    large = Blip2Model(CaptionerOptions(path=folder_of(tiny.blip2_opt), device="cpu", image_size=42))
    image_pixels = torch.randn(2, 3, 42, 42)
    expected = small.model.vision_model(image_pixels, interpolate_pos_encoding=True).last_hidden_state
    actual = large.model.vision_model(image_pixels).last_hidden_state
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert large.image_size == large.model.vision_model.embeddings.image_size == 42
    assert large.fingerprint() != small.fingerprint()
    image = images("caption")[0].image
    assert large.image_reader()(image).shape == (3, 42, 42)
    prompts = [m.prompt("caption", [], images("caption")[0]) for m in (small, large)]
    assert small.score(prompts[:1], 1) != large.score(prompts[1:], 1)
    with pytest.raises(ConfigError, match=r"cannot read images of 30 x 30 pixels.*7 x 7"):
        Blip2Model(CaptionerOptions(path=folder_of(tiny.blip2_opt), device="cpu", image_size=30))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json",
                                  "tokenizer_config.json"])  # fmt: skip
def test_a_folder_that_lacks_a_file_is_one_line(file: str, folder_of: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of(tiny.blip2_opt), tmp_path / "copy")
    (folder / file).unlink()
    with pytest.raises(ConfigError) as caught:
        Blip2Model(CaptionerOptions(path=str(folder), device="cpu"))
    assert "\n" not in caught.value.message
    assert str(folder) in caught.value.message


def test_weights_of_another_size_are_refused(folder_of: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(folder_of(tiny.blip2_opt), tmp_path / "copy")
    shutil.copy(Path(folder_of(tiny.blip2_opt_wider)) / "model.safetensors", folder)
    with pytest.raises(
        ConfigError, match=r"not have the size in its config.json, including \S+: \(.*48\), not \(.*32\)"
    ):
        Blip2Model(CaptionerOptions(path=str(folder), device="cpu"))


def test_another_architecture_is_refused(folder_of: Folder) -> None:
    with pytest.raises(ConfigError, match=r"has the architecture blip-2, but the files in .* are for blip"):
        Blip2Model(CaptionerOptions(path=folder_of(tiny.blip), device="cpu"))
