"""What people and programs read of a report."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.cli.app import run
from icltool.cli.boundary import guarded
from icltool.cli.output import cell, print_json, print_rows, show
from icltool.contracts.report import StageReport
from tests.processes import Child


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (12345, "12,345"),
        (0.123456, "0.1235"),
        (12345.67, "12,345.7"),
        ([1, 2], "1, 2"),
        (Path("a/b"), "a/b"),
        ("[N, D]", "[N, D]"),
    ],
)
def test_cells(value: Any, text: str) -> None:
    assert cell(value) == text


def test_a_report_as_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ({"method": "i2i", "shots": 4, "seed": 12345}, {"method": "[bold]", "shots": None, "extra": 1.5})
    show(StageReport("results [N, D]", rows, Path("out/results.json"), ("a remark",)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "results [N, D]"
    cells = [line.split() for line in lines]
    assert ["method", "shots", "seed", "extra"] in cells
    assert ["i2i", "4", "12345", "-"] in cells
    assert ["[bold]", "-", "-", "1.5"] in cells
    assert lines[-2:] == ["a remark", "output: out/results.json"]


def test_the_path_is_relative_to_the_current_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path, printed in ((Path.cwd() / "a.json", "a.json"), (tmp_path / "b.json", str(tmp_path / "b.json"))):
        show(StageReport("results", ({"x": 1},), path))
        assert "".join(capsys.readouterr().out.split()).endswith(f"output:{printed}")
        show(StageReport("results", ({"x": 1},), path), as_json=True)
        assert json.loads(capsys.readouterr().out)["path"] == str(path)


def test_a_report_as_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ({"a": np.float32(0.5), "b": float("nan"), "c": np.arange(2), "d": Path("x"), "e": "Ä"},)
    show(StageReport("t", rows, None, ("r",)), as_json=True)
    out = capsys.readouterr().out
    assert "NaN" not in out
    assert json.loads(out) == {
        "schema": "icltool-report",
        "version": 2,
        "title": "t",
        "path": None,
        "rows": [{"a": 0.5, "b": None, "c": [0, 1], "d": "x", "e": "Ä"}],
        "notes": ["r"],
    }


def test_a_report_may_bring_its_own_table(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Own(StageReport):
        own: str = field(default="its own table")

        def table(self, verbose: bool = False) -> str:
            return self.own + (" in full" if verbose else "")

    report = Own("t", ({"a": 1},), None, ("a note",), ("a detail",))
    show(report)
    assert capsys.readouterr().out.splitlines() == ["its own table", "a note"]
    show(report, verbose=True)
    assert capsys.readouterr().out.splitlines() == ["its own table in full", "a note", "a detail"]
    show(report, quiet=True)
    assert capsys.readouterr().out.splitlines() == ["its own table"]
    show(report, as_json=True)
    assert json.loads(capsys.readouterr().out)["notes"] == ["a note", "a detail"]


def test_a_list_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.csv"
    file.write_text("12345")
    show([file], as_json=True)
    assert json.loads(capsys.readouterr().out)["rows"] == [{"file": str(file), "bytes": 5}]


def test_no_rows_leave_the_title(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("nothing to do", [])
    assert capsys.readouterr().out == "nothing to do\n"


def test_a_pipe_is_as_wide_as_the_table_unless_columns_says_otherwise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, note = "/a/very/long/path" * 60, "  a note of some words that is longer than the screen is wide"
    report = StageReport("t", ({"path": path},), None, (note,))
    monkeypatch.delenv("COLUMNS", raising=False)
    show(report)
    out = capsys.readouterr().out.splitlines()
    assert path in out
    assert note in out
    monkeypatch.setenv("COLUMNS", "40")
    show(report)
    out = capsys.readouterr().out.splitlines()
    assert max(map(len, out)) <= 40
    assert path in "".join(line.strip() for line in out)
    assert out[-2:] == ["  a note of some words that is longer", "    than the screen is wide"]


def test_json_of_keys_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({1: {"x"}})
    assert json.loads(capsys.readouterr().out) == {"1": ["x"]}


def in_a_fork(prepare: Callable[[], object], *arguments: str) -> Child:
    """A command after `prepare` in a process of its own, which has ended."""

    def work() -> int:
        prepare()
        return run(arguments)

    with Child(work) as child:
        child.wait()
    return child


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize("arguments", [["clean", "--workspace"], ["doctor", "--json", "--workspace"]])
def test_a_stream_that_is_closed_does_no_harm(name: str, arguments: list[str], tmp_path: Path) -> None:
    child = in_a_fork(lambda: setattr(sys, name, None), *arguments, str(tmp_path))
    assert child.wait() == 0, child.err
    assert bool(child.out) == (name != "stdout")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is always full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_under_what_is_printed_is_one_line(options: list[str], tmp_path: Path) -> None:
    def fill() -> None:
        sys.stdout = open("/dev/full", "w")  # noqa: SIM115, PTH123

    child = in_a_fork(fill, "clean", *options, "--workspace", str(tmp_path))
    assert child.wait() == 2
    assert child.err.splitlines()[0] == "error: standard output cannot be written: No space left on device"
    assert "Traceback" not in child.err


def test_an_error_elsewhere_is_not_blamed_on_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert guarded(fail) == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert "what is printed" not in err


def test_a_current_folder_that_was_removed_is_one_line(tmp_path: Path) -> None:
    def leave() -> None:
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()

    child = in_a_fork(leave, "clean", "--workspace", str(tmp_path))
    assert child.wait() == 2
    assert child.err.splitlines()[0] == "error: the current folder has been removed"
