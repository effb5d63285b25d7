"""The idefics2 adapter against plain full forward passes with the published processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from icltool.components.models.idefics.idefics2 import Idefics2Model
from icltool.components.models.idefics.options import IdeficsOptions
from icltool.contracts import Example
from icltool.errors import ConfigError
from icltool.testing import check_model
from icltool.testing.plain import torch_twin
from tests.components.models import tiny

Folder = Callable[[Callable[[Path], str]], str]
Images = Callable[[str], list[Example]]


@pytest.fixture(scope="module")
def model(folder_of: Folder) -> Idefics2Model:
    return Idefics2Model(IdeficsOptions(name="idefics2", path=folder_of(tiny.idefics2), device="cpu"))


@pytest.mark.external
@pytest.mark.parametrize("task", ["caption", "vqa"])
def test_idefics2_conforms(task: str, model: Idefics2Model, images: Images) -> None:
    inputs = tiny.plain_inputs(model.source, do_image_splitting=False)
    twin = torch_twin(model.model, model.tokenizer, inputs, model.end_tokens, model.image_tokens)
    check_model(model, images(task), task=task, twin=twin)


def test_an_image_is_read_whole(model: Idefics2Model, images: Images) -> None:
    """The checkpoint splits images into five; the published runs do not. One image has 4 tokens in this model."""
    example = images("caption")[0]
    prompt = model.prompt("caption", [], example)
    assert prompt.text == "<s><image>Caption:"
    ids = model._encode([prompt], None, "right").inputs["input_ids"][0].tolist()
    image, fake = (model.tokenizer.convert_tokens_to_ids(t) for t in ("<image>", "<fake_token_around_image>"))
    assert ids[1:7] == [fake, image, image, image, image, fake]
    assert image not in ids[7:]
    assert [tuple(f.shape) for f in model.image_features([example.image], 1)] == [(4, 32)]


def test_prompts_without_images_are_read_too(model: Idefics2Model, images: Images) -> None:
    demonstration = images("caption")[0]
    plain = [replace(e, image="") for e in images("caption")[1:3]]
    prompts = [model.prompt("classification", plain[:1], query) for query in (plain[1], demonstration)]
    alone = [model.score([p], 1)[0].log_prob for p in prompts]
    features = dict(zip([demonstration.image], model.image_features([demonstration.image], 1), strict=True))
    for cached_features in (None, features):
        assert [s.log_prob for s in model.score(prompts, 2, cached_features)] == pytest.approx(alone, abs=1e-4)


def test_another_architecture_is_refused(folder_of: Folder) -> None:
    with pytest.raises(
        ConfigError, match=r"has the architecture idefics2, but the files in .* are for llava_onevision"
    ):
        Idefics2Model(IdeficsOptions(path=folder_of(tiny.llava_onevision), device="cpu"))
