"""What a user reads when something is wrong: one line that names the file, one with the way out, exit code 2."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from icltool.cli.app import run
from icltool.store.sequences import SequenceFile

GENERATE = ["generate", "--dataset=shapes", "--task=caption", "--model=tiny-idefics", "--device=cpu"]
GENERATE += ["--candidates=6", "--beam-size=2", "--shots=1"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs icltool, which must refuse; what it printed to stderr, checked for its form."""
    capsys.readouterr()
    code = run(list(arguments))
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    lines = [line for line in err.splitlines() if line]
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
        ("text-llm", "--prompt-template", "live"),
        ("smolvlm", "--prompt-template", "live"),
        ("tiny-idefics", "--prompt-style", "flat"),
    ],
)
def test_what_a_model_cannot_be_asked_for_is_told_by_the_option_s_name(
    model: str, option: str, value: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--workspace", str(workspace), "--dataset", "shapes", "--task", "caption", "--model", model]
    for command in (["generate"], ["evaluate", "--method", "random"]):
        err = refusal(capsys, *command, *where, option, value)
        assert err.startswith(f"error: model {model!r} has no option ")
        assert f"({option})\nhint: leave {option} out; its options: " in err


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


@pytest.mark.slow
def test_killed_again_and_again_the_content_stays_the_same(workspace: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of `icltool generate`, then the same command; compared with a run that nobody disturbed."""

    def command(name: str) -> list[str]:
        where = ["--workspace", str(workspace), "--output", str(tmp_path / name), "--anchors", "48", "--quiet"]
        # slow enough to be killed in the middle, in groups that leave something to be killed
        size = ["--candidates", "12", "--beam-size", "3", "--shots", "2", "--anchors-at-once", "3", "--batch-size", "8"]
        return [sys.executable, "-m", "icltool", *GENERATE, *where, *size]

    target = tmp_path / "killed.h5"
    kept = [0]
    for _ in range(3):
        process = subprocess.Popen(command("killed.h5"), start_new_session=True)
        while process.poll() is None:
            time.sleep(0.15)
            if target.is_file() and len(SequenceFile.open(target)) >= kept[-1] + 3:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        kept.append(len(SequenceFile.open(target)))
        assert kept[-1] >= kept[-2] + 3
    assert kept[-1] < 48, "the run was over before it was killed"
    for name in ("killed.h5", "whole.h5"):
        assert subprocess.run(command(name), check=False).returncode == 0
    killed, whole = SequenceFile.open(target).arrays(), SequenceFile.open(tmp_path / "whole.h5").arrays()
    for name, values in whole.items():
        np.testing.assert_array_equal(killed[name], values, err_msg=name)


@pytest.mark.slow
def test_two_runs_on_one_artefact_and_ctrl_c(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [*GENERATE, "--workspace", str(workspace), "--anchors", "60", "--json"]
    arguments += ["--candidates", "12", "--beam-size", "4", "--shots", "3"]  # long enough for a second process to start
    first = subprocess.Popen([sys.executable, "-m", "icltool", *arguments], stderr=subprocess.PIPE, text=True)
    folder = workspace / "sequences"
    while not list(folder.glob("*.h5")):
        time.sleep(0.05)
    time.sleep(1)
    second = subprocess.run([sys.executable, "-m", "icltool", *arguments], capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert second.stdout == ""
    assert ".h5" in second.stderr
    assert str(first.pid) in second.stderr
    first.send_signal(signal.SIGINT)
    err = first.communicate(timeout=60)[1]
    assert first.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert run(arguments) == 0
    assert json.loads(capfd.readouterr().out)["rows"][0]["anchors"] == 60
