"""Help from the file is the help of the commands themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.cli.boundary import guarded
from icltool.cli.group import command_line
from icltool.cli.quick_help import quick_help, stored_help


def live(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command itself prints."""
    group = command_line()

    def call() -> None:
        with group.make_context("icltool", list(words)) as context:
            group.invoke(context)

    capsys.readouterr()
    assert guarded(call) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("path", stored_help())
def test_it_is_the_help_of_the_command(
    path: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    names = path.split()[1:]
    for flag in ("-h", "--help", "--help-all"):
        assert quick_help([*names, flag]) == live([*names, flag], capsys)


def test_no_word_asks_for_the_overview() -> None:
    assert quick_help([]) == quick_help(["--help"])


@pytest.mark.parametrize(
    "words", [["evaluate"], ["evaluate", "--shots", "1", "--help"], ["nonsense", "--help"], ["--version", "--help"]]
)
def test_anything_else_is_the_commands_business(words: list[str]) -> None:
    assert quick_help(words) is None


def test_with_plugins_the_overview_is_not_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "more-1.0.dist-info").mkdir()
    (tmp_path / "more-1.0.dist-info" / "entry_points.txt").write_text("[icltool]\nmore = more\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert quick_help(["--help"]) is None
    assert quick_help(["evaluate", "--help"]) is not None
