"""InstructBLIP with Vicuna and Flan-T5 against plain full forward passes of transformers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from icltool.components.models.blip.instructblip import InstructBlipModel
from icltool.components.models.shared.captioner import CaptionerOptions, opening
from icltool.contracts import Example
from icltool.errors import ConfigError
from icltool.testing import check_model
from tests.components.models import tiny_captioners as tiny
from tests.components.models.captioner_twins import prefixed_twin

Folder = Callable[[Callable[[Path], str]], str]
Images = Callable[[str], list[Example]]


@pytest.fixture(
    scope="module",
    params=[tiny.instructblip_llama, pytest.param(tiny.instructblip_t5, marks=pytest.mark.external)],
    ids=["vicuna", "t5"],
)
def model(request: pytest.FixtureRequest, folder_of: Folder) -> InstructBlipModel:
    return InstructBlipModel(CaptionerOptions(name="instructblip", path=folder_of(request.param), device="cpu"))


def test_instructblip_conforms(model: InstructBlipModel, images: Images) -> None:
    """The twin gives the Q-Former `a photo of` with each image: what stands behind it, without the caption."""
    check_model(model, images("caption"), twin=prefixed_twin(model, model.source))


def test_the_q_former_reads_queries_and_no_answers(model: InstructBlipModel, images: Images) -> None:
    first, second = images("vqa")[:2]
    prompt = model.prompt("vqa", [first], second)
    read = model._image_inputs([prompt])["qformer_input_ids"]
    texts = model.processor.qformer_tokenizer.batch_decode(read, skip_special_tokens=True)
    assert [text.replace(" ", "") for text in texts] == ["question:whatisitshortanswer:"] * 2
    plain = model.plain_prompt("what is it", first.image, "red bar")
    texts = model.processor.qformer_tokenizer.batch_decode(
        model._image_inputs([plain])["qformer_input_ids"], skip_special_tokens=True
    )
    assert texts == ["what is it"]


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_text_has_the_tokens_that_it_has_by_itself(scheme: str) -> None:
    """In training image tokens were put before those of the text, whose first word has its blank (or none)."""
    tokenizer = tiny.piece_tokenizer("<s>", scheme)
    start = opening(tokenizer, "<image>", "<s>")
    actual = tokenizer(f"<image>{start}a photo of", add_special_tokens=False)["input_ids"]
    assert actual[1:] == tokenizer("a photo of")["input_ids"]


def test_a_folder_without_the_q_formers_tokenizer_is_refused(folder_of: Folder, tmp_path: Path) -> None:
    """transformers would take the language model's in its place."""
    folder = shutil.copytree(folder_of(tiny.instructblip_llama), tmp_path / "copy")
    shutil.rmtree(folder / "qformer_tokenizer")
    with pytest.raises(ConfigError, match="has no Q-Former tokenizer"):
        InstructBlipModel(CaptionerOptions(path=str(folder), device="cpu"))
