"""A setting may take hours: what a kill leaves of it is gone on with, and the end is as without the kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.commands.evaluate import answering, run as evaluate
from icltool.commands.evaluate.options import EvaluateConfig
from icltool.errors import StoreError
from icltool.execution.progress import for_terminal
from icltool.store.evaluations import read_evaluation
from icltool.store.locking import locked
from tests.processes import Child

OPTIONS: dict[str, Any] = {
    "model": "tiny-idefics",
    "device": "cpu",
    "task": "caption",
    "methods": ("zero-shot", "random"),
    "shots": (2,),
    "permutations": 2,
    "batch_size": 4,
    "metrics": ("cider", "bleu-4"),
}


class Spy:
    """Notes how much of each piece of work was done before."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[Spy]:
        self.done[description] = done
        yield self

    def advance(self, amount: int = 1) -> None: ...
    def note(self, text: str) -> None: ...
    def say(self, text: str) -> None: ...
    def detail(self, text: str) -> None: ...


def content(folder: Path) -> dict[str, Any]:
    """All that an evaluation left, but for times."""
    results = json.loads((folder / "results.json").read_text())
    for entry in results["results"]:
        entry["seconds"] = None
        entry["extra"].get("run", {}).pop("date", None)
        for order in entry["extra"].get("orders", {}).get("each", ()):
            order["seconds"] = None
    predictions = {p.name: p.read_text() for p in (folder / "predictions").iterdir()}
    return {"results": results, "predictions": predictions}


@pytest.fixture(scope="module")
def whole(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(small_world / "datasets" / "shapes" / "caption", folder / "datasets" / "shapes" / "caption")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "CHUNK", 4)
        patch.setattr(answering, "BATCHES", 1)
        report = evaluate.run(EvaluateConfig(workspace=folder, **OPTIONS), for_terminal(quiet=True))
    assert report.path is not None
    return report.path


def killed(workspace: Path, profile: Path, chunks: int, number: int) -> int:
    """Evaluates in chunks of four queries, and gets the signal after so many of them. For a process of its own."""
    append, left = answering.PartialAnswers.append, chunks

    def counted(part: Any, *arguments: Any) -> None:
        nonlocal left
        append(part, *arguments)
        left -= 1
        if not left:
            os.kill(os.getpid(), number)

    answering.CHUNK, answering.BATCHES = 4, 1
    answering.PartialAnswers.append = counted  # type: ignore[method-assign]
    return run(["evaluate", "--workspace", str(workspace), "--profile", str(profile), "--quiet"])


@pytest.mark.parametrize(
    ("number", "chunks", "resumed"),
    [
        pytest.param(
            signal.SIGKILL,
            8,  # six chunks are zero-shot
            {"random, 2-shot": 8, "random, 2-shot, order 2": 0},
            marks=pytest.mark.reliability,
        ),
        (signal.SIGTERM, 17, {"random, 2-shot, order 2": 20}),
    ],
)
def test_killed_in_the_middle_and_gone_on_with(
    workspace: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, number: int, chunks: int, resumed: dict[str, int]
) -> None:
    profile = workspace / "p.toml"
    options = {name: list(v) if isinstance(v, tuple) else v for name, v in OPTIONS.items()}
    profile.write_text("[evaluate]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items()))
    with Child(lambda: killed(workspace, profile, chunks, number)) as child:
        assert child.wait() == (-9 if number == signal.SIGKILL else 143), child.err
    monkeypatch.setattr(answering, "CHUNK", 4)
    monkeypatch.setattr(answering, "BATCHES", 1)
    spy = Spy()
    report = evaluate.run(EvaluateConfig(workspace=workspace, **OPTIONS), spy)
    assert report.path is not None
    assert spy.done == resumed
    assert content(report.path) == content(whole)


def test_a_second_writer_is_refused(workspace: Path, whole: Path) -> None:
    folder = workspace / "evaluations" / whole.name
    shutil.copytree(whole, folder)
    with locked(folder / "results.json"), pytest.raises(StoreError, match="is being written by"):
        evaluate.run(EvaluateConfig(workspace=workspace, **OPTIONS), for_terminal(quiet=True))


def test_again_without_change_reads_results_alone(
    workspace: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace / "evaluations" / whole.name
    shutil.copytree(whole, folder)
    before = (folder / "results.json").read_bytes()
    for file in (folder / "predictions").iterdir():
        file.unlink()
    report = evaluate.run(EvaluateConfig(workspace=workspace, **OPTIONS), for_terminal(quiet=True))
    assert "up to date: 2 of 2 settings" in report.lines()[-1]
    assert (folder / "results.json").read_bytes() == before
    assert report.analysis == json.loads(before)["analysis"]
    assert [r.extra for r in report.results] == [r.extra for r in read_evaluation(folder).results]
