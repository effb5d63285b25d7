"""What a user reads when something is wrong: one line that names the file, one with the way out, exit code 2."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from icltool.cli.app import run
from icltool.contracts import QueryResult
from icltool.store.sequences import SequenceFile, SequenceWriter
from tests.processes import PATIENCE, Child, until

GENERATE = ["generate", "--dataset=shapes", "--task=caption", "--model=tiny-idefics", "--device=cpu"]
GENERATE += ["--candidates=6", "--beam-size=2", "--shots=1"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs icltool, which must refuse; what it printed to stderr, checked for its form."""
    capsys.readouterr()
    code = run(list(arguments))
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    # on a slow machine it also says how far it came
    lines = [line for line in err.splitlines() if line and ": stopped at " not in line]
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "--model", "idefics-9b"], ["no data set is prepared", "icltool prepare"]),
        (["evaluate", "--method", "i2i"], ["no data set is prepared", "icltool prepare"]),
        (["prepare", "cocoo2017"], ["cocoo2017", "did you mean 'coco2017'"]),
        (["prepare", "coco2017", "--root", "nowhere"], ["nowhere"]),
        (["export", "results"], ["icltool evaluate"]),
        (["generate", "--shots", "0"], ["--shots"]),
        (["generate", "--shots", "two"], ["--shots"]),
        (["generate", "--beam-score", "total"], ["--beam-score", "increment"]),
        (["generate", "--prompt-template", "flamingo"], ["--prompt-template", "lever-lm", "live"]),
        (["evaluate", "--set", "prompt_template=flamingo"], ["prompt_template", "lever-lm", "live"]),
        (["generate", "--set", "anchrs=3"], ["anchrs", "did you mean"]),
        (["generate", "--profile", "nothing-of-this-name"], ["nothing-of-this-name"]),
        (["generat"], ["generat"]),
        (["train", "lever-lmm"], ["lever-lmm"]),
    ],
)
def test_wrong_calls(
    arguments: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ICLTOOL_WORKSPACE", "COCO_PATH", "VQAV2_PATH"):
        monkeypatch.delenv(name, raising=False)
    err = refusal(capsys, *arguments)
    for word in words:
        assert word in err


def test_a_link_that_leads_to_itself(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "plan.json"
    link.symlink_to(link.name)
    where = ["--workspace", str(workspace), "--dataset=shapes", "--task=caption", "--model=tiny-idefics"]
    assert str(link) in refusal(capsys, "evaluate", *where, "--plan", str(link))


def test_the_issued_commands_say_what_is_missing_where_data_are_prepared(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_CPK_DIR", raising=False)
    for arguments in (["generate", "--model", "idefics-9b"], ["evaluate", "--method", "i2i"]):
        err = refusal(capsys, *arguments, "--workspace", str(workspace))
        assert "weights of idefics-9b are not on this machine" in err
        assert "--model-path" in err


@pytest.mark.parametrize(
    ("model", "option", "value"),
    [
        ("blip-base", "--prompt-template", "live"),
        ("blip2-opt-2.7b", "--prompt", "PROMPT"),
        ("tiny-idefics", "--prompt-style", "flat"),
    ],
)
def test_what_a_model_cannot_be_asked_for_is_told_by_the_option_s_name(
    model: str, option: str, value: str, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if value == "PROMPT":
        value = str(tmp_path / "mine.toml")
        Path(value).write_text('instruction = "Look."')
    where = ["--workspace", str(workspace), "--dataset", "shapes", "--task", "caption", "--model", model]
    for command in (["generate"], ["evaluate", "--method", "random"]):
        err = refusal(capsys, *command, *where, option, value)
        assert err.startswith(f"error: model {model!r} has no option ")
        flags = "--prompt or --prompt-template" if "prompt" in option and "style" not in option else option
        assert f"({flags})\nhint: leave {flags} out; its options: " in err


def test_damaged_files_are_named(workspace: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    where = ["--workspace", str(workspace), "--dataset", "shapes", "--task", "caption"]
    manifest = workspace / "datasets" / "shapes" / "caption" / "dataset.json"
    whole = manifest.read_text()
    manifest.write_text(whole[:100])
    assert "dataset.json" in refusal(capsys, "generate", *where, "--model", "tiny-idefics")
    manifest.write_text(whole)
    sequences = tmp_path / "mine.h5"
    sequences.write_text("no HDF5")
    assert "mine.h5" in refusal(capsys, "train", "lever-lm", *where, "--sequences", str(sequences))
    assert "mine.h5" in refusal(capsys, *GENERATE, "--workspace", str(workspace), "--output", str(sequences))


def search(workspace: Path, output: Path, anchors: int, *more: str) -> list[str]:
    """`icltool generate` into `output`, in groups of three anchors that leave something to be killed."""
    size = ["--candidates=12", "--beam-size=3", "--shots=2", "--anchors-at-once=3", "--batch-size=8"]
    where = ["--workspace", str(workspace), "--output", str(output), "--anchors", str(anchors), "--quiet"]
    return [*GENERATE, *where, *size, *more]


def after_appends(count: int, act: Callable[[], object]) -> None:
    """Acts when `count` sequences have been written."""
    append = SequenceWriter.append
    numbers = itertools.count(1)

    def counted(self: SequenceWriter, result: QueryResult) -> None:
        append(self, result)
        if next(numbers) == count:
            act()

    SequenceWriter.append = counted  # type: ignore[method-assign]  # in a process that ends


def killed_again_and_again(workspace: Path, folder: Path, anchors: int, kill: Callable[[Path, int], None]) -> None:
    """Three times SIGKILL in the middle of `icltool generate`, each after three more anchors at least (`kill(file, anchors)`),
    then the same command; compared with a run that nobody disturbed."""
    whole, target = folder / "whole.h5", folder / "killed.h5"
    assert run(search(workspace, whole, anchors)) == 0
    counts = [0]
    for _ in range(3):
        kill(target, counts[-1] + 3)
        counts.append(len(SequenceFile.open(target)))
        assert counts[-1] >= counts[-2] + 3
    assert counts[-1] < anchors, "the run was over before it was killed"
    assert run(search(workspace, target, anchors)) == 0
    arrays = SequenceFile.open(target).arrays()
    for name, values in SequenceFile.open(whole).arrays().items():
        np.testing.assert_array_equal(arrays[name], values, err_msg=name)


@pytest.mark.reliability
def test_killed_again_and_again_the_content_stays_the_same(workspace: Path, tmp_path: Path) -> None:
    def kill(target: Path, stored: int) -> None:
        def work() -> int:
            after_appends(4, lambda: os.kill(os.getpid(), signal.SIGKILL))  # the second of a group
            return run(search(workspace, target, 15))

        with Child(work) as child:
            assert child.wait() == -signal.SIGKILL, child.err

    killed_again_and_again(workspace, tmp_path, 15, kill)


@pytest.mark.reliability
def test_killed_at_any_moment_the_content_stays_the_same(workspace: Path, tmp_path: Path) -> None:
    def kill(target: Path, stored: int) -> None:
        with Child(lambda: run(search(workspace, target, 48))) as child:
            until(lambda: child.poll() is not None or (target.is_file() and len(SequenceFile.open(target)) >= stored))

    killed_again_and_again(workspace, tmp_path, 48, kill)


def test_two_runs_on_one_artefact_and_ctrl_c(
    workspace: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*GENERATE, "--workspace", str(workspace), "--anchors", "8", "--anchors-at-once=1", "--json"]

    ready = tmp_path / "ready"

    def wait() -> None:
        ready.touch()
        time.sleep(PATIENCE)

    def work() -> int:
        after_appends(3, wait)
        return run(arguments)

    with Child(work) as first:
        until(lambda: ready.exists() or first.poll() is not None)
        assert first.poll() is None, first.err
        assert run(arguments) == 2
        output = capfd.readouterr()
        assert output.out == ""
        assert ".h5" in output.err
        assert str(first.pid) in output.err
        first.send_signal(signal.SIGINT)
        assert first.wait() == 130, first.err
        assert "interrupted" in first.err
        assert "Traceback" not in first.err
    assert run(arguments) == 0
    assert json.loads(capfd.readouterr().out)["rows"][0]["anchors"] == 8
