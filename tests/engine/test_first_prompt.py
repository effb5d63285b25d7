"""Files of a model that load and do not fit one another are told before the model is asked anything of worth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.components.models.shared.weights import packaged_weights
from icltool.components.tasks import BUILT_IN
from icltool.config.model import ModelConfig
from icltool.contracts import Example, Prompt
from icltool.engine.first_prompt import check_first_prompt
from icltool.errors import ConfigError, DataError
from tests.testing.test_check_models import HashModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(packaged_weights("tiny-idefics"), tmp_path / "weights"))


def opened(folder: Path, task: str = "vqa") -> Any:
    return ModelConfig(model="idefics-9b", model_path=str(folder), device="cpu").open_model(task)


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("task", BUILT_IN)
def test_a_whole_folder_is_loaded(folder: Path, task: str) -> None:
    assert opened(folder, task).fingerprint()


def _larger_images(folder: Path) -> None:
    changed(folder / "preprocessor_config.json", image_size=64, size={"height": 64, "width": 64})


def _other_tokens(folder: Path) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words.update({word: 90_000 + place for place, word in enumerate(words) if not word.startswith("<")})
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(("spoil", "message"), [(_larger_images, "64*64"), (_other_tokens, "Error")])
def test_files_that_do_not_fit_one_another_are_one_line(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    with pytest.raises(ConfigError) as error:
        opened(folder)
    assert error.value.message.startswith(f"model idefics-9b, loaded from {folder}, cannot read its first prompt: ")
    assert message in error.value.message
    assert "\n" not in error.value.message


class Raising(HashModel):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def score(self, prompts: list[Prompt], batch_size: int) -> Any:  # type: ignore[override]
        raise self.error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError()])
def test_what_is_wrong_with_the_machine_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        check_first_prompt(Raising(error), "mine", "/weights", "caption")
    assert raised.value is error


def test_a_model_that_refuses_images_is_asked_without(tmp_path: Path) -> None:
    prompts: list[str] = []

    class TextAlone(HashModel):
        def prompt(self, task: str, demonstrations: Any, query: Example) -> Prompt:
            prompts.append(query.image)
            if query.image:
                raise DataError("reads text only", "")
            return super().prompt(task, demonstrations, query)

    check_first_prompt(TextAlone(), "mine", "/weights", "caption")
    assert len(prompts) == 2
    assert prompts[1] == ""
    check_first_prompt(Raising(DataError("nothing at all", "")), "mine", "/weights", "caption")


def test_the_prompt_is_one_of_the_task(tmp_path: Path) -> None:
    queries: list[Example] = []

    class Noting(HashModel):
        def prompt(self, task: str, demonstrations: Any, query: Example) -> Prompt:
            queries.append(query)
            return super().prompt(task, demonstrations, query)

    check_first_prompt(Noting(), "mine", "/weights", "caption")
    assert queries[0].image
    assert not Path(queries[0].image).exists(), "nothing is left"
