"""BLIP against plain full forward passes of transformers and its own `generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from icltool.components.models.blip.blip import BlipModel
from icltool.components.models.shared.captioner import CaptionerOptions
from icltool.contracts import Example, GenerationOptions
from icltool.errors import ConfigError, DataError
from icltool.testing import check_model
from tests.components.models import tiny_captioners as tiny
from tests.components.models.captioner_twins import blip_twin, pixels

Folder = Callable[[Callable[[Path], str]], str]
Images = Callable[[str], list[Example]]


@pytest.fixture(scope="module")
def model(folder_of: Folder) -> BlipModel:
    return BlipModel(CaptionerOptions(name="blip", path=folder_of(tiny.blip), device="cpu"))


def test_blip_conforms(model: BlipModel, images: Images) -> None:
    check_model(model, images("caption"), twin=blip_twin(model, model.source))


def test_demonstrations_are_text_alone(model: BlipModel, images: Images) -> None:
    first, second, query = images("caption")[:3]
    prompt = model.prompt("caption", [first, second], query)
    assert prompt.text == f"[DEC]a picture of {first.label}. a picture of {second.label}. a picture of"
    assert (prompt.images, prompt.target) == ((query.image,), f" {query.label}[SEP]")
    with pytest.raises(DataError, match="reads 1 image per prompt, not 2"):
        model.score([type(prompt)(prompt.text, (first.image, query.image), " red")], 1)


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_equal_those_of_transformers(beams: int, model: BlipModel, images: Images) -> None:
    prompts = [model.prompt("caption", [], example) for example in images("caption")[:4]]
    ids = model.tokenizer(["a picture of"] * 4, return_tensors="pt")["input_ids"]
    output = model.model.generate(
        pixels(model.source, tuple(p.images[0] for p in prompts)), ids, torch.ones_like(ids), max_new_tokens=8,
        num_beams=beams, suppress_tokens=model._suppressed(), **({"length_penalty": 1.0} if beams > 1 else {}),
    )  # fmt: skip
    expected = model.tokenizer.batch_decode(output[:, ids.shape[1] - 1 :], skip_special_tokens=True)
    assert model.generate(prompts, GenerationOptions(8, beams, 1.0), 4) == expected


def test_a_tokenizer_of_another_model_is_refused(folder_of: Folder, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(folder_of(tiny.blip), tmp_path / "copy")
    tokenizer = tiny.word_tokenizer()
    tokenizer.add_tokens(["one", "more"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"has \[DEC\] at \d+, the model at \d+"):
        BlipModel(CaptionerOptions(path=str(folder), device="cpu"))
