"""The idefics adapter passes the suite of models, on the embedded world's weights and on others, and answers as plain
forward passes do."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.components.models.idefics.idefics import IdeficsModel
from icltool.testing import check_model, make_examples, torch_twin
from icltool.world.scenes import NONCE_WORDS
from tests.components.models.idefics.test_idefics import plain_inputs


@pytest.mark.parametrize(
    ("kind", "task"),
    [("tiny_model", "caption"), pytest.param("small_idefics", "vqa", marks=pytest.mark.external)],
)
def test_idefics_conforms(kind: str, task: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: IdeficsModel = request.getfixturevalue(kind)
    twin = torch_twin(
        model.model, model.tokenizer, lambda prompt, text: plain_inputs(model, prompt, text), [2], model._markers
    )
    check_model(model, make_examples(tmp_path, 10, task=task, words=NONCE_WORDS[:7]), task=task, twin=twin)
