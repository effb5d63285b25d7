"""Commands made from configuration models: options, precedence as typed, output, and the error boundary."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.sample_main import call
from tests.processes import PATIENCE, Child, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ICLTOOL_WORKSPACE", raising=False)


def values(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The configuration that the stage was given."""
    assert call([*arguments, "--json"]) == 0, capsys.readouterr().err
    return {row["option"]: row["value"] for row in json.loads(capsys.readouterr().out)["rows"]}


def test_nothing_given_means_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert values(capsys, "x") == {
        "workspace": "icl-workspace",
        "name": "x",
        "anchors": 5000,
        "rate": None,
        "order": "left",
        "level": 1,
        "pace": "running",
        "methods": ["random"],
        "shots": [1, 2],
        "options": {},
        "fast": False,
        "output": None,
    }


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--anchors", "7"], "anchors", 7),
        (["-n", "7"], "anchors", 7),
        (["--rate", "0.5"], "rate", 0.5),
        (["--rate", "none"], "rate", None),
        (["--order", "right"], "order", "right"),
        (["--level", "3"], "level", 3),
        (["--method", "i2i", "--method", "t2t"], "methods", ["i2i", "t2t"]),
        (["--method", "i2i,t2t"], "methods", ["i2i", "t2t"]),
        (["--shots", "1,2", "--shots", "4"], "shots", [1, 2, 4]),
        (["--num-fewshot", "1,2"], "shots", [1, 2]),
        (["--num_fewshot=1", "--shots", "2"], "shots", [1, 2]),
        (["--quickly"], "fast", True),
        (["--no_quickly"], "fast", False),
        (["--option", "a=1", "--option", "b=x", "--option", "c=[1, 2]"], "options", {"a": 1, "b": "x", "c": [1, 2]}),
        (["--option", "d='7'"], "options", {"d": "7"}),
        (["--fast"], "fast", True),
        (["--no-fast"], "fast", False),
        (["--output", "a/b"], "output", "a/b"),
        (["--set", "anchors=9"], "anchors", 9),
        (["--set", "shots=3"], "shots", [3]),
        (["--set", "shots=[3, 5]"], "shots", [3, 5]),
        (["--set", "options.depth=2"], "options", {"depth": 2}),
        (["--set", "fast=true"], "fast", True),
        (["--set", "anchors=9", "--anchors", "8"], "anchors", 8),
        (["--anchors", "8", "--set", "anchors=9"], "anchors", 8),
        (["--set", "options.a=1", "--option", "b=2"], "options", {"a": 1, "b": 2}),
        (["--workspace", "w"], "workspace", "w"),
    ],
)
def test_options(arguments: list[str], key: str, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert values(capsys, "x", *arguments)[key] == value


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a call prints, on one line."""
    assert call([*arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_of_all_options_shows_description_default_and_environment(capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(capsys, "--help-all")
    assert text.startswith(
        "Usage: sample [OPTIONS] NAME One field of every form. Arguments: NAME what to do (required) "
    )
    for part in (
        "-n, --anchors N how many (default: 5000)",
        "--rate NUMBER units per second (default: the machine's)",
        "--order left|right which way (default: left)",
        "--pace NAME how fast (one of walking, striding, running; default: running)",
        "--method NAME,… methods (default: random)",
        "--shots N,… numbers of demonstrations (default: 1,2)",
        "--option KEY=VALUE options --",
        "--[no-]fast hurry (default: off)",
        "--output PATH where to write [N, D] Demonstrations:",
        "(environment variable ICLTOOL_WORKSPACE; default: icl-workspace)",
    ):
        assert part in text


def test_help_has_groups_in_order_and_in_each_the_daily_options_first(capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(capsys, "--help-all")
    in_order = [
        "Options:",
        "-n, --anchors",
        "Demonstrations:",
        "--shots",
        "--order",
        "--method",
        "Every command:",
        "--json",
    ]
    assert [text.index(f" {part}") for part in in_order] == sorted(text.index(f" {part}") for part in in_order)


def test_short_help_lists_the_daily_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = output_of(capsys, "-h")
    assert text == output_of(capsys, "--help")
    for part in ("-n, --anchors", "Demonstrations: --shots", "Every command: --workspace", "-h, --help show this help"):
        assert part in text
    for flag in ("--order", "--method", "--json", "--help-all show"):
        assert flag not in text
    assert text.endswith("Run `sample --help-all` for all 18 options.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "argument NAME is missing: what to do"),
        (["x", "--rate", "-1"], "--rate must be greater than 0, got -1"),
        (["x", "--level", "4"], "--level must be 1, 2 or 3, got '4'"),
        (["x", "--shots", "1,two"], "--shots must be an integer, got 'two'"),
        (["x", "--option", "a"], "--option: 'a' is not of the form KEY=VALUE"),
        (["x", "--set", "anchor=1"], "--set anchor=1: sample has no option 'anchor'"),
        (["x", "--set", "anchors"], "--set 'anchors' is not of the form key=value"),
        (["x", "--set", "anchors=-1"], "--set anchors must be at least 1, got -1"),
        (["x", "--set", "anchors.x=1"], "--set anchors.x=1: anchors is a single value and has no keys"),
        (["small"], "small takes at most 10 anchors"),
        (["fail"], "the file is broken"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = [line for line in output.err.splitlines() if line != "working"]
    assert lines[0] == f"error: {message}"
    assert len(lines) <= 2
    assert all(line.startswith("hint: ") for line in lines[1:])


def test_memory_that_runs_out_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["large"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith("error: memory ran out")
    assert "--batch-size" in lines[-1]


def test_a_bug_shows_its_traceback_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["bug"]) == 1
    stderr = capsys.readouterr().err
    assert "Traceback" in stderr
    assert "RuntimeError: a bug" in stderr


def test_table_remarks_and_progress_have_their_streams(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["x", "--verbose"]) == 0
    output = capsys.readouterr()
    assert "sample" in output.out
    assert "5,000" in output.out
    assert "a remark" in output.out
    assert "working\n" in output.err
    assert "in detail\n" in output.err


def test_quiet_leaves_the_result_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["x", "--quiet"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "5,000" in output.out
    assert "a remark" not in output.out


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The sample command as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cli.sample_main", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_json_keeps_stdout_free_of_what_libraries_and_children_print() -> None:
    for more in ([], ["--verbose"]):
        out, err = start("noisy", "--json", *more).communicate(timeout=PATIENCE)
        assert json.loads(out)["title"] == "sample"
        assert ("tests: printed by a library\n" in err) == bool(more)
        assert ("printed by a child process\n" in err) == bool(more)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_is_one_line(number: signal.Signals, code: int, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = start("wait", SAMPLE_READY=str(ready))
    until(ready.exists)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert out == ""
    assert err == "working\ninterrupted; finished work is kept: run the same command to resume\n"


def test_environment_file_of_the_current_folder(tmp_path: Path) -> None:
    """A .env file fills in, the real environment wins."""
    (tmp_path / ".env").write_text("ICLTOOL_WORKSPACE=from-file\n")

    def called_there(environment: dict[str, str]) -> Child:
        def work() -> int:
            os.chdir(tmp_path)
            os.environ.update(environment)
            return call(["x", "--json"])

        with Child(work) as child:
            assert child.wait() == 0, child.err
        return child

    for environment, expected in (({}, "from-file"), ({"ICLTOOL_WORKSPACE": "from-shell"}, "from-shell")):
        rows = {row["option"]: row["value"] for row in json.loads(called_there(environment).out)["rows"]}
        assert rows["workspace"] == expected
