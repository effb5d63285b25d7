"""Stages on a real Ray cluster of two nodes on this machine: whatever dies, the content is that of a run in one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

pytest.importorskip("ray")

from icltool.cli.app import run
from icltool.commands.embed import run as embed
from icltool.commands.embed.options import EmbedConfig
from icltool.commands.evaluate import run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.commands.generate import run as generate
from icltool.commands.generate.options import GenerateConfig
from icltool.errors import DataError
from icltool.execution.progress import for_terminal
from icltool.store.embeddings import EmbeddingFile
from icltool.store.failures import failures_file, read_failures
from icltool.store.out_of_order_rows import out_of_order_path
from icltool.store.records import open_dataset
from icltool.store.sequences import SequenceFile
from icltool.store.workspace import Workspace

if TYPE_CHECKING:
    from tests.components.executors.ray_nodes import TwoNodes

pytest_plugins = ("tests.components.executors.ray_nodes",)
pytestmark = [pytest.mark.reliability, pytest.mark.xdist_group("ray")]
QUIET = for_terminal(quiet=True)
SEARCH: dict[str, Any] = {
    "task": "caption",
    "model": "tiny-idefics",
    "device": "cpu",
    "candidates": 6,
    "beam_size": 3,
    "anchors": 10,
    "anchors_at_once": 2,
    "batch_size": 8,
}


class Striking:
    """A progress that strikes once so many units were done, and keeps what was said."""

    def __init__(self, *blows: tuple[int, Callable[[], None]]) -> None:
        self.blows, self.done, self.said, self.noted = list(blows), 0, [], set()  # type: ignore[var-annotated]

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[Striking]:
        yield self

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        if self.blows and self.done >= self.blows[0][0]:
            self.blows.pop(0)[1]()

    def note(self, text: str) -> None:
        self.noted.add(text)

    def say(self, text: str) -> None:
        self.said.append(text)

    def detail(self, text: str) -> None: ...


def kill_a_worker() -> None:
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::RayWorker"):
            os.kill(process.pid, signal.SIGKILL)
            return
    raise AssertionError("there is no worker")


def arrays_of(path: Path) -> dict[str, Any]:
    with SequenceFile.open(path) as file:
        assert file.complete
        return file.arrays()


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@contextmanager
def broken(image: str) -> Iterator[None]:
    """Within it the image cannot be read; size and time are as they were, so that it is not taken for another one."""
    path = Path(image)
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        yield
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose images may be broken, as long as they are mended."""
    home = tmp_path_factory.mktemp("images")
    sizes = ["--option=index_images=104", "--option=validation_images=24"]
    assert run(["prepare", "shapes", "--workspace", str(home), "--quiet", "--task", "caption", *sizes]) == 0
    return home


@pytest.fixture
def own_images(images: Path, tmp_path: Path) -> Path:
    """A workspace of that data set, to write into."""
    folder = Path("datasets") / "shapes" / "caption"
    shutil.copytree(images / folder, tmp_path / "own" / folder)
    return tmp_path / "own"


def on(nodes: TwoNodes, workers: int) -> dict[str, Any]:
    return {"address": nodes.address, "workers": workers, "gpus_per_worker": 0}


def test_a_search_that_loses_a_worker_finds_the_same(nodes: TwoNodes, workspace: Path, tmp_path: Path) -> None:
    generate.run(GenerateConfig(workspace=workspace, output=tmp_path / "here.h5", **SEARCH), QUIET)
    progress = Striking((2, kill_a_worker))
    config = GenerateConfig(workspace=workspace, output=tmp_path / "there.h5", **on(nodes, 2), **SEARCH)
    report = generate.run(config, progress)
    assert not progress.blows
    same(arrays_of(tmp_path / "there.h5"), arrays_of(tmp_path / "here.h5"))
    assert any("of 2 workers" in note for note in progress.noted)
    assert any("died" in remark for remark in report.remarks)
    assert not failures_file(tmp_path / "there.h5").exists()


@pytest.mark.reliability
def test_a_search_that_loses_a_worker_and_a_node_finds_the_same(
    nodes: TwoNodes, workspace: Path, tmp_path: Path
) -> None:
    search = {**SEARCH, "anchors": 24}
    generate.run(GenerateConfig(workspace=workspace, output=tmp_path / "here.h5", **search), QUIET)
    progress = Striking((3, kill_a_worker), (9, nodes.lose_second), (15, nodes.add_second))
    config = GenerateConfig(workspace=workspace, output=tmp_path / "there.h5", **on(nodes, 3), **search)
    try:
        report = generate.run(config, progress)
    finally:
        nodes.mend()
    assert not progress.blows
    same(arrays_of(tmp_path / "there.h5"), arrays_of(tmp_path / "here.h5"))
    assert any("of 3 workers" in note for note in progress.noted)
    notes = " ".join(report.remarks)
    assert "died" in notes or "lost" in notes
    assert "1,584 prompts" in notes or "prompts" in notes
    assert not failures_file(tmp_path / "there.h5").exists()


def test_what_cannot_be_searched_is_listed_and_done_later(
    nodes: TwoNodes, own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "there.h5"
    generate.run(GenerateConfig(workspace=own_images, output=tmp_path / "here.h5", **SEARCH), QUIET)
    records = open_dataset(own_images / "datasets" / "shapes" / "caption").split("train")
    anchor = int(arrays_of(tmp_path / "here.h5")["query_id"][5])
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SEARCH.items() if name != "anchors_at_once"]
    call = ["generate", "--workspace", str(own_images), "--output", str(target), *options, "--anchors-at-once=2"]
    call += ["--executor=ray", "--address", nodes.address, "--workers=2", "--gpus-per-worker=0"]
    with broken(records[records.row_of(anchor)].image):
        assert run(call) == 2
    stderr = capsys.readouterr().err
    assert "failed after 3 attempts on " in stderr
    assert "hint: all are listed in" in stderr
    assert "Traceback" not in stderr
    lost = [i for failure in read_failures(target) for i in failure["anchors"]]
    assert anchor in lost
    with SequenceFile.open(target) as file:
        assert set(file.query_ids) == set(arrays_of(tmp_path / "here.h5")["query_id"].tolist()) - set(lost)
    assert run(call) == 0
    same(arrays_of(target), arrays_of(tmp_path / "here.h5"))
    assert not failures_file(target).exists()


def test_rows_behind_one_that_cannot_be_embedded_are_kept(nodes: TwoNodes, own_images: Path) -> None:
    options: dict[str, Any] = {"workspace": own_images, "encoder": "tiny-clip", "device": "cpu", "batch_size": 16}
    embed.run(EmbedConfig(**options), QUIET)
    path = Workspace(own_images).embeddings_file("shapes", "caption", "train", "tiny-clip")
    with EmbeddingFile.open(path) as file:
        whole = {"ids": file.ids, **{field: file.read(field) for field in file.fields}}
    there = EmbedConfig(**options, **on(nodes, 2))
    image = open_dataset(own_images / "datasets" / "shapes" / "caption").split("train").images[40]
    with broken(image), pytest.raises(DataError, match=r"64 of 104 examples of train failed.*rows 0 to 63 of train"):
        embed.run(there.model_copy(update={"overwrite": True}), QUIET)
    assert out_of_order_path(path).exists()
    with EmbeddingFile.open(path) as file:
        assert len(file) == 0
    report = embed.run(there, QUIET)
    assert report.rows()[0]["embedded now"] == 64
    assert not out_of_order_path(path).exists()
    with EmbeddingFile.open(path) as file:
        assert file.complete
        np.testing.assert_array_equal(file.ids, whole["ids"])
        for field in file.fields:
            np.testing.assert_array_equal(file.read(field), whole[field])


def test_an_evaluation_on_workers_is_that_of_one_process(nodes: TwoNodes, workspace: Path) -> None:
    options: dict[str, Any] = {
        "workspace": workspace,
        "task": "caption",
        "model": "tiny-idefics",
        "device": "cpu",
        "methods": ("zero-shot", "random", "i2i"),
        "shots": (1, 3),
        "seeds": (0, 1),
        "permutations": 2,
        "batch_size": 4,
        "metrics": ("word-accuracy",),
        "cost": True,
        "test_size": 8,
    }
    here = evaluate.run(EvaluateConfig(**options), QUIET)
    assert here.path is not None
    expected = {file.name: file.read_text() for file in (here.path / "predictions").iterdir()}
    there = EvaluateConfig(**options, overwrite=True, **on(nodes, 2), ship_data=True)
    progress = Striking((20, kill_a_worker))
    report = evaluate.run(there, progress)
    assert not progress.blows
    assert report.path == here.path
    assert {file.name: file.read_text() for file in (here.path / "predictions").iterdir()} == expected
    results = json.loads((here.path / "results.json").read_text())["results"]
    assert all("cost" in one["extra"] for one in results if one["seed"] == 0)
    assert len({one["extra"]["cost"]["call"] for one in results if "cost" in one["extra"]}) == 1
    assert [r.metrics for r in report.results] == [r.metrics for r in here.results]


def test_answers_that_cannot_be_had_leave_the_other_settings(nodes: TwoNodes, own_images: Path) -> None:
    options: dict[str, Any] = {"workspace": own_images, "task": "caption", "model": "tiny-idefics", "device": "cpu"}
    options |= {
        "methods": ("zero-shot", "random"),
        "shots": (1,),
        "metrics": ("word-accuracy",),
        "batch_size": 4,
        "cost": True,
        "test_size": 8,
    }
    there = EvaluateConfig(**options, **on(nodes, 2))
    whole = evaluate.run(EvaluateConfig(**options), QUIET)
    assert whole.path is not None
    ids = json.loads(next((whole.path / "predictions").glob("random-*")).read_text().splitlines()[0])["icd_ids"][0]
    records = open_dataset(own_images / "datasets" / "shapes" / "caption").split("train")
    with (
        broken(records[records.row_of(ids)].image),
        pytest.raises(DataError, match=r"of random, 1-shot.* cannot be read"),
    ):
        evaluate.run(there.model_copy(update={"overwrite": True}), QUIET)
    results = json.loads((whole.path / "results.json").read_text())["results"]
    assert {one["method"] for one in results} >= {"zero-shot"}
    again = evaluate.run(there, QUIET)
    assert [r.metrics for r in again.results] == [r.metrics for r in whole.results]
    assert not failures_file(whole.path / "results.json").exists()


def test_what_was_there_stays_where_nothing_could_be_searched(
    nodes: TwoNodes, own_images: Path, tmp_path: Path
) -> None:
    target = tmp_path / "there.h5"
    options = {**SEARCH, "anchors": 2}
    generate.run(GenerateConfig(workspace=own_images, output=target, **options), QUIET)
    before = arrays_of(target)
    records = open_dataset(own_images / "datasets" / "shapes" / "caption").split("train")
    image = records[records.row_of(int(before["query_id"][0]))].image
    config = GenerateConfig(workspace=own_images, output=target, overwrite=True, **on(nodes, 1), **options)
    with broken(image), pytest.raises(DataError, match="2 of 2 anchors failed"):
        generate.run(config, QUIET)
    same(arrays_of(target), before)
