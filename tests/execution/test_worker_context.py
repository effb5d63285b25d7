"""Workers find the files that the command means."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from icltool.commands.embed.options import EmbedConfig
from icltool.components.executors.local import LocalExecutor
from icltool.config.env import VARIABLES
from icltool.contracts import Region, with_regions
from icltool.errors import ConfigError
from icltool.execution.worker_context import MakeWorker, WorkerContext, worker_context
from icltool.store.records import open_dataset


class Sends:
    """An executor that sends files to a place on the same disk."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def ship(self, paths: dict[str, Path]) -> Sends:
        import shutil

        for name, path in paths.items():
            shutil.copytree(path, self.target / name)
        return self

    def local(self, name: str) -> Path:
        return self.target / name

    def run(self, make_worker: object, units: object) -> object: ...
    def describe(self) -> dict[str, object]: ...  # type: ignore[empty-body]


def test_relative_paths_and_variables_mean_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_CPK_DIR", "weights")
    place = WorkerContext.here(VARIABLES)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.delenv("MODEL_CPK_DIR")
    config = EmbedConfig(workspace=Path("ws"))
    assert place.enter(config) is config
    assert Path.cwd() == tmp_path
    assert os.environ["MODEL_CPK_DIR"] == "weights"
    monkeypatch.setenv("MODEL_CPK_DIR", "mine")
    WorkerContext(str(tmp_path / "gone"), place.variables).enter(config)
    assert os.environ["MODEL_CPK_DIR"] == "mine", "a machine may have its weights elsewhere"
    assert Path.cwd() == tmp_path


def worker(config: EmbedConfig) -> Callable[[int], str]:
    return lambda unit: f"{config.workspace} {unit}"


def test_a_worker_is_made_with_the_configuration_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make = pickle.loads(pickle.dumps(MakeWorker(worker, EmbedConfig(workspace=Path("ws")), WorkerContext.here())))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert list(LocalExecutor().run(make, range(2))) == ["ws 0", "ws 1"]
    assert Path.cwd() == tmp_path


def test_what_is_sent_is_a_workspace_of_its_own(workspace: Path, tmp_path: Path) -> None:
    folder = workspace / "datasets" / "shapes" / "caption"
    records = open_dataset(folder).split("train")
    region = with_regions(records.images[1], [Region(1, 2, 3, 4)])
    extra = tmp_path / "vectors.safetensors"
    extra.write_text("vectors")
    embeddings = sorted((workspace / "embeddings").glob("*.h5"))[:1]
    config = EmbedConfig(workspace=workspace, workers=1, ship_data=True)
    sends, images = Sends(tmp_path / "node"), [records.images[0], region, ""]
    with worker_context(sends, folder, images, embeddings, [extra], ship=True, variables=()) as place:  # type: ignore[arg-type]
        here = place.enter(config)
        assert place.file(extra).read_text() == "vectors"
        assert place.file(extra) != extra
        assert place.file(tmp_path / "other") == tmp_path / "other"
    assert here.workspace == tmp_path / "node" / "workspace"
    assert (here.workspace / "embeddings" / embeddings[0].name).read_bytes() == embeddings[0].read_bytes()
    moved = open_dataset(here.workspace / "datasets" / "shapes" / "caption")
    assert moved.fingerprint == open_dataset(folder).fingerprint
    for row in (0, 1):
        image = Path(moved.split("train").images[row])
        assert image.is_relative_to(here.workspace)
        assert image.read_bytes() == Path(records.images[row]).read_bytes()
        assert moved.split("train")[row].image == moved.split("train").rows([row])[0].image == str(image)
    assert moved.split("train").images[2] == records.images[2], "what was not sent stays where it was"
    assert next(iter(moved.split("train"))).text == records[0].text


def test_an_executor_that_sends_nothing_says_so(workspace: Path) -> None:
    with (
        pytest.raises(ConfigError, match="LocalExecutor cannot send files"),
        worker_context(LocalExecutor(), workspace, [], ship=True, variables=()),
    ):
        pass
