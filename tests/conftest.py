"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers: threads of their own would only get in one another's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from icltool.contracts import Example
from icltool.world.render import render
from icltool.world.scenes import Lexicon, Scene, dataset_lexicon


class Scenery:
    """Makes captioned examples of the embedded world as image files."""

    def __init__(self, folder: Path, lexicon: Lexicon) -> None:
        self.folder = folder
        self.lexicon = lexicon
        self.made = 0

    def example(self, colour: int, shape: int, question: str = "") -> Example:
        """A caption example, or with `question` ("what colour?" or "what shape?") a VQA example."""
        self.made += 1
        scene = Scene(colour, shape)
        path = self.folder / f"{self.made:06d}.jpg"
        render(scene, np.random.default_rng([77, self.made])).save(path, quality=95)
        words = self.lexicon.words(scene)
        label = f"a {words[0]} {words[1]}"
        if question:
            label = words[0] if "colour" in question else words[1]
        text = question or label
        return Example(self.made, str(path), self.made, text, label, (label,), question, scene.name)

    def mixed(self, count: int, seed: int = 0, question: str = "") -> list[Example]:
        """Examples of random scenes."""
        rng = np.random.default_rng(seed)
        return [self.example(*(int(v) for v in rng.integers(0, 8, 2)), question=question) for _ in range(count)]


@pytest.fixture(scope="session")
def scenery(tmp_path_factory: pytest.TempPathFactory) -> Scenery:
    return Scenery(tmp_path_factory.mktemp("scenery"), dataset_lexicon(0))


@pytest.fixture(scope="session")
def tiny_model():  # type: ignore[no-untyped-def]
    """The embedded world's LVLM, loaded as users load it."""
    from icltool.plugin.manager import component

    return component("models", "tiny-idefics", device="cpu")


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a small world, prepared and embedded by the real stages. Read only: copy it to write into it."""
    from icltool.config.embed import EmbedConfig
    from icltool.config.prepare import PrepareConfig
    from icltool.execution.progress import for_terminal
    from icltool.stages import embed, prepare

    workspace, quiet = tmp_path_factory.mktemp("world"), for_terminal(quiet=True)
    sizes: dict[str, str | int | float | bool] = {"index_images": 104, "validation_images": 24}
    prepare.run(PrepareConfig(workspace=workspace, name="shapes", options=sizes), quiet)
    for task in ("caption", "vqa"):
        embed.run(EmbedConfig(workspace=workspace, task=task, encoder="tiny-clip", device="cpu"), quiet)
    return workspace


@pytest.fixture
def workspace(small_world: Path, tmp_path: Path) -> Path:
    """The small world's workspace, to write into; its pictures are shared."""
    import shutil

    shutil.copytree(small_world / "embeddings", tmp_path / "ws" / "embeddings")
    for task in ("caption", "vqa"):
        shutil.copytree(small_world / "datasets" / "shapes" / task, tmp_path / "ws" / "datasets" / "shapes" / task)
    return tmp_path / "ws"
