"""Text-only language models, with absolute and with rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.text.text import TextModel
from icltool.contracts import Example
from icltool.errors import ConfigError, DataError
from icltool.testing import check_model
from icltool.testing.plain import torch_twin
from tests.components.models import tiny
from tests.suites import apart

Folder = Callable[[Callable[[Path], str]], str]
LABELS = ("red bar", "green block", "blue frame", "yellow bar", "red block", "green frame", "blue bar", "yellow block")


def example(i: int, **changes: object) -> Example:
    text = f"the {'short ' * (3 * i % 7)}question {i}"
    item = Example(i, "", i, text, LABELS[i % 8], (LABELS[i % 8],), question=text, choices=LABELS)
    return replace(item, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest, folder_of: Folder) -> TextModel:
    return TextModel(RemoteCodeOptions(name=request.param, path=folder_of(tiny.TEXT[request.param]), device="cpu"))


@pytest.mark.parametrize("task", apart("external", ["vqa"], ["classification", "vqa"]))
def test_text_models_conform(task: str, model: TextModel) -> None:
    twin = torch_twin(model.model, model.tokenizer, tiny.plain_text_inputs(model.source), model.end_tokens)
    check_model(model, [example(i) for i in range(8)], task=task, twin=twin)


def test_the_prompt_has_the_tokenizers_own_start_and_end(folder_of: Folder) -> None:
    llama = TextModel(RemoteCodeOptions(path=folder_of(tiny.llama), device="cpu"))
    prompt = llama.prompt("classification", [example(0, text="a")], example(1, text="b"))
    assert (prompt.text, prompt.target) == ("<s>Input:a Label:red bar\nInput:b Label:", "green block\n</s>")
    gpt2 = TextModel(
        RemoteCodeOptions(path=folder_of(tiny.gpt2), device="cpu")
    )  # its tokenizer writes no BOS, and it pads with EOS
    prompt = gpt2.prompt("classification", [], example(0, text="a <|endoftext|>"))
    assert (prompt.text, prompt.target) == ("Input:a < |endoftext|> Label:", "red bar\n")


def test_data_with_images_is_refused(model: TextModel) -> None:
    with pytest.raises(ConfigError, match="reads text only"):
        model.prompt("vqa", [example(0)], example(1, image="image.jpg"))
    with pytest.raises(ConfigError, match="reads text only") as caught:
        model.prompt("caption", [], example(1))
    assert "idefics-9b" in str(caught.value.hint)


def test_a_prompt_longer_than_the_model_reads_is_an_error(folder_of: Folder) -> None:
    model = TextModel(RemoteCodeOptions(name="gpt2", path=folder_of(tiny.gpt2), device="cpu"))
    with pytest.raises(DataError, match="the model reads at most 512"):
        model.score([model.prompt("classification", [], example(0, text="x " * 600))], 1)
