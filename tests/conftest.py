"""Fixtures that several folders of tests share."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if "PYTEST_XDIST_WORKER" in os.environ:  # several workers: threads of their own would only get in one another's way
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings

from icltool.components.models.idefics.options import IdeficsOptions
from icltool.contracts import Example
from icltool.world.render import render
from icltool.world.scenes import Lexicon, Scene, dataset_lexicon

settings.register_profile("icltool", deadline=None)  # how long an example takes says nothing on a loaded machine
settings.load_profile("icltool")

if TYPE_CHECKING:
    from icltool.components.models.idefics.idefics import IdeficsModel

_DEADLINE = "ICLTOOL_TESTS_DEADLINE"
#: Makes a folder once per run of the tests, whatever the number of workers: its name, and what fills it.
Shared = Callable[[str, Callable[[Path], object]], Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, help="begin no test after so many minutes; skip the others")


def pytest_configure(config: pytest.Config) -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would every process that a test starts."""
    os.environ.pop("COLUMNS", None)  # output is wrapped where a test sets it only
    gc.disable()  # while the tests are imported: see below
    if config.getoption("--minutes") is not None:  # workers inherit it
        os.environ.setdefault(_DEADLINE, str(time.time() + 60 * config.getoption("--minutes")))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Modules stay to the end: a collection of garbage that looks through all of them again and again finds nothing."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > float(os.environ.get(_DEADLINE, "inf")):
        pytest.skip("its time did not come: --minutes")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file go to one worker, so that what they share is made once; unless they have a group of their own."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


class Scenery:
    """Makes captioned examples of the embedded world as image files."""

    def __init__(self, folder: Path, lexicon: Lexicon) -> None:
        self.folder = folder
        self.lexicon = lexicon
        self.count = 0

    def example(self, colour: int, shape: int, question: str = "") -> Example:
        """A caption example, or with `question` ("what colour?" or "what shape?") a VQA example."""
        self.count += 1
        scene = Scene(colour, shape)
        path = self.folder / f"{self.count:06d}.jpg"
        render(scene, np.random.default_rng([77, self.count])).save(path, quality=95)
        words = self.lexicon.words(scene)
        label = f"a {words[0]} {words[1]}"
        if question:
            label = words[0] if "colour" in question else words[1]
        text = question or label
        return Example(self.count, str(path), self.count, text, label, (label,), question, scene.name)

    def mixed(self, count: int, seed: int = 0, question: str = "") -> list[Example]:
        """Examples of random scenes."""
        rng = np.random.default_rng(seed)
        return [self.example(*(int(v) for v in rng.integers(0, 8, 2)), question=question) for _ in range(count)]


@pytest.fixture(scope="module")
def scenery(tmp_path_factory: pytest.TempPathFactory) -> Scenery:
    """Images are drawn by their number: those of a module do not depend on which modules came before."""
    return Scenery(tmp_path_factory.mktemp("scenery"), dataset_lexicon(0))


@pytest.fixture(scope="session")
def tiny_model():  # type: ignore[no-untyped-def]
    """The embedded world's LVLM, loaded as users load it."""
    from icltool.plugin.manager import component

    return component("models", "tiny-idefics", device="cpu")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """The folder of this name that all workers read and none writes into; the first that asks for it fills it."""
    own = tmp_path_factory.getbasetemp()
    base = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        base.mkdir(exist_ok=True)
        path, filled = base / name, base / f"{name}.filled"
        with FileLock(base / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(path, ignore_errors=True)  # of a worker that failed on the way
                path.mkdir()
                fill(path)
                filled.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def resampled_folder(shared: Shared) -> Path:
    """A tiny random IDEFICS with a perceiver, as idefics-9b has and tiny-idefics has not."""
    from tests.components.models.tiny import idefics_resampled

    return shared("idefics-resampled", idefics_resampled)


@pytest.fixture(scope="session", autouse=True)
def short_costs() -> Iterator[None]:
    """What an evaluation measures of its costs, of one query in one run: no test depends on how fast this machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("icltool.commands.evaluate.costs.SAMPLE", 1)
        patch.setattr("icltool.engine.query_cost.REPEATS", 1)
        yield


@pytest.fixture(scope="session")
def resampled(resampled_folder: Path) -> IdeficsModel:
    from icltool.components.models.idefics.idefics import IdeficsModel

    return IdeficsModel(IdeficsOptions(name="resampled", path=str(resampled_folder), device="cpu"))


@pytest.fixture(scope="session")
def small_idefics(shared: Shared) -> IdeficsModel:
    """Of two layers and a width of 32."""
    from icltool.components.models.idefics.idefics import IdeficsModel
    from tests.components.models.tiny import idefics, shared_folder

    return IdeficsModel(IdeficsOptions(name="idefics", path=shared_folder(shared, idefics), device="cpu"))


@pytest.fixture(scope="session")
def small_world(shared: Shared) -> Path:
    """A workspace with a small world, prepared and embedded by the real stages. Read only: copy it to write into it."""
    from icltool.commands.embed import run as embed
    from icltool.commands.embed.options import EmbedConfig
    from icltool.commands.prepare import run as prepare
    from icltool.commands.prepare.options import PrepareConfig
    from icltool.execution.progress import for_terminal

    def fill(workspace: Path) -> None:
        quiet = for_terminal(quiet=True)
        sizes: dict[str, str | int | float | bool] = {"index_images": 104, "validation_images": 24}
        prepare.run(PrepareConfig(workspace=workspace, name="shapes", options=sizes), quiet)
        for task in ("caption", "vqa"):
            embed.run(EmbedConfig(workspace=workspace, task=task, encoder="tiny-clip", device="cpu"), quiet)

    return shared("small-world", fill)


@pytest.fixture
def workspace(small_world: Path, tmp_path: Path) -> Path:
    """The small world's workspace, to write into; its images are shared."""
    shutil.copytree(small_world / "embeddings", tmp_path / "ws" / "embeddings")
    for task in ("caption", "vqa"):
        shutil.copytree(small_world / "datasets" / "shapes" / task, tmp_path / "ws" / "datasets" / "shapes" / task)
    return tmp_path / "ws"
