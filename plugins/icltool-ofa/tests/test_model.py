"""The adapter on a tiny folder: the conformance suite, images, precision, and what can be wrong with a folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from icltool_ofa.model import OFAModel, OFAOptions
from PIL import Image
from tiny_model import EOS, SIZE, STYLES, load, twin_of, write_folder

from icltool import Augmentation, ConfigError, DataError, Example, GenerationOptions, HasGenerationDefaults, IclError
from icltool.testing import check_model, make_examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("ofa"))


@pytest.fixture(scope="module")
def model(folder: Path) -> OFAModel:
    return load(folder, image_size=SIZE, styles=STYLES, tokenize_style=True)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return make_examples(tmp_path_factory.mktemp("images"), 8)


def test_it_passes_the_conformance_suite_and_equals_a_plain_twin(model: OFAModel, examples: list[Example]) -> None:
    check_model(model, examples, twin=twin_of(model))


def test_styles_pass_the_conformance_suite(model: OFAModel, examples: list[Example]) -> None:
    styled = [replace(e, style=STYLES[k % 3]) for k, e in enumerate(examples)]
    check_model(model, styled, task="style")


@pytest.mark.training
def test_vqa_passes_the_conformance_suite(model: OFAModel, tmp_path: Path) -> None:
    check_model(model, make_examples(tmp_path, 8, task="vqa"), task="vqa")


def test_the_published_search_is_the_default(model: OFAModel, examples: list[Example]) -> None:
    assert isinstance(model, HasGenerationDefaults)
    options = GenerationOptions(**model.generation_defaults("caption"))
    assert options == GenerationOptions(16, 5, 1.0, min_new_tokens=1, no_repeat_ngram=3)
    prompts = [model.prompt("caption", [], example) for example in examples[:2]]
    plain = twin_of(model)
    assert model.generate(prompts, options, 2) == [plain.answer(prompt, options) for prompt in prompts]
    with pytest.raises(ConfigError, match="does not support a repetition penalty"):
        model.generate(prompts, replace(options, repetition_penalty=1.1), 2)


def test_the_style_changes_what_is_written(model: OFAModel, examples: list[Example]) -> None:
    assert model.styles == STYLES
    prompts = [model.prompt("style", [], replace(examples[0], style=style)) for style in STYLES]
    codes = [model.tokenizer.convert_tokens_to_ids(f"<code_{i}>") for i in range(3)]
    for prompt, code in zip(prompts, codes, strict=True):
        assert model._tokens([prompt], True)[0].text.count(code) == 1
    assert len({score.log_prob for score in model.score(prompts, 3)}) == 3


def test_the_end_is_a_token_of_the_target(model: OFAModel, examples: list[Example]) -> None:
    prompt = model.prompt("caption", [], examples[0])
    (tokens,) = model._tokens([prompt], with_target=True)
    assert (tokens.text[0], tokens.text[-1], tokens.target[-1]) == (0, EOS, EOS)
    assert model.score([prompt], 1)[0].tokens == len(tokens.target)
    assert model.token_counts([prompt]) == [len(tokens.text) + len(tokens.target)]


def test_images_are_cut_or_squeezed(folder: Path, model: OFAModel, tmp_path: Path) -> None:
    file = tmp_path / "wide.png"
    pixels = np.zeros((40, 90, 3), np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(file)
    cut = model.pixel_reader(Augmentation())(str(file))
    assert cut.shape == (3, SIZE, SIZE)
    assert cut.max() < -0.9  # the left edge is cut off
    squeezed = load(folder, image_size=SIZE, fit="squeeze").pixel_reader(Augmentation())(str(file))
    assert squeezed[0, :, 2].min() == pytest.approx(1.0, abs=1e-3)


def test_a_prompt_has_one_image_and_fits(model: OFAModel, examples: list[Example]) -> None:
    prompt = model.prompt("caption", [], examples[0])
    for images in ((), prompt.images * 2):
        with pytest.raises(DataError, match="reads one image per prompt"):
            model.score([replace(prompt, images=images)], 1)
    with pytest.raises(DataError, match="the model reads at most 256"):
        model.score([replace(prompt, text=prompt.text * 60)], 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(folder: Path, model: OFAModel, examples: list[Example], dtype: str) -> None:
    half = load(folder, image_size=SIZE, dtype=dtype)
    prompts = [half.prompt("caption", examples[2 : 2 + k], examples[0]) for k in (0, 2)]
    for actual, expected in zip(half.score(prompts, 2), model.score(prompts, 2), strict=True):
        assert actual.log_prob == pytest.approx(expected.log_prob, abs=0.3)
    assert len(half.generate(prompts, GenerationOptions(4, 2), 2)) == 2
    assert half.fingerprint() != model.fingerprint()


def test_the_fingerprint_tells_settings_and_weights_apart(folder: Path, model: OFAModel, tmp_path: Path) -> None:
    same = load(folder, image_size=SIZE, styles=STYLES, tokenize_style=True)
    assert same.fingerprint() == model.fingerprint()
    others = [
        load(folder, image_size=SIZE),
        load(folder, image_size=64),
        load(write_folder(tmp_path, 1), image_size=SIZE),
    ]
    assert len({model.fingerprint(), *(other.fingerprint() for other in others)}) == 4


def test_options_that_cannot_be(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no attention implementation 'eager'"):
        load(folder, attention="eager")
    with pytest.raises(ConfigError, match="unknown device 'tpux'"):
        OFAModel(OFAOptions(path=str(folder), device="tpux"))


@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin", "vocab.json", "merges.txt"])
def test_a_missing_file_is_told_in_one_line(folder: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / name).unlink()
    with pytest.raises(IclError) as error:
        load(copy)
    assert ("weights" if name.endswith(".bin") else name) in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 64}, "has the shape"),
        ({"use_ofasys": True}, "use_ofasys"),
        ({"vocab_size": 9000}, "tokens, the network 9000"),
        ({"model_type": "bert"}, "of type 'bert'"),
    ],
)
def test_another_configuration_is_told_in_one_line(
    folder: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    fields = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**fields, **changes}))
    with pytest.raises(IclError) as error:
        load(copy)
    assert message in error.value.message
    assert "\n" not in error.value.message


def test_nothing_of_it_is_left_on_the_global_generator(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load(folder, image_size=SIZE)
    assert torch.equal(torch.rand(1), expected)
