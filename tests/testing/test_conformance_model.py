"""The idefics adapter passes the suite of models, on the embedded world's weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.models.idefics import IdeficsModel
from icltool.testing import check_model, make_examples
from icltool.world.scenes import NONCE_WORDS


@pytest.mark.slow
@pytest.mark.parametrize("task", ["caption", "vqa"])
def test_tiny_idefics_conforms(task: str, tiny_model: IdeficsModel, tmp_path: Path) -> None:
    check_model(tiny_model, make_examples(tmp_path, 10, task=task, words=NONCE_WORDS[:7]), task=task)
