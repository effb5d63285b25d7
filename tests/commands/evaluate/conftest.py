"""A small world with one finished fine-tuning of its BLIP-2."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands.train.fine_tuning import fine_tuned as fine_tune


@pytest.fixture(scope="session")
def captioner_world(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the captions of the small world and the training. Read only: copy it to write into it."""
    home = tmp_path_factory.mktemp("captioner")
    shutil.copytree(small_world / "datasets" / "shapes" / "caption", home / "datasets" / "shapes" / "caption")
    fine_tune(home)
    return home


@pytest.fixture
def fine_tuned_world(captioner_world: Path, tmp_path: Path) -> Path:
    """The same, to write into."""
    return Path(shutil.copytree(captioner_world, tmp_path / "ws"))


@pytest.fixture
def trained(fine_tuned_world: Path) -> Path:
    """The checkpoint folder in it."""
    (file,) = (fine_tuned_world / "checkpoints").glob("*/training.json")
    return file.parent
