"""The command reference: complete, the same at any width, and current in the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from icltool.cli.reference import END, START, main, render_reference, replace_between_markers
from icltool.config.fields import extras, flag_of
from icltool.errors import ConfigError
from icltool.plugin.commands import commands, stage_model, stages

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_is_current() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert replace_between_markers(text, render_reference()) == text, "run `python -m icltool.cli.reference --write`"


def test_every_command_and_every_option_is_there() -> None:
    sections = render_reference().split("### ")
    for name in commands():
        assert any(section.startswith(f"`icltool {name}`") for section in sections)
    for stage in stages():
        section = next(s for s in sections if s.startswith(f"`icltool {stage}`"))
        for name, field in stage_model(stage).model_fields.items():
            argument = f"`{extras(field).get('metavar') or name.upper()}`"
            shown = argument if extras(field).get("argument") else flag_of(name, field)
            assert shown in section.translate(dict.fromkeys(map(ord, "[]…"))) or shown in section
            assert (field.description or "").replace("|", "\\|").split(" <")[0] in section
        for flag in ("--profile", "--set", "--workspace", "-q, --quiet", "-v, --verbose", "--json"):
            assert flag in section


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["reference", *arguments])
    assert main() == 0


@pytest.mark.parametrize("columns", ["40", "200"])
def test_it_does_not_depend_on_the_terminal(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = render_reference()
    monkeypatch.setenv("COLUMNS", columns)
    called(monkeypatch)
    assert capsys.readouterr().out == before


def test_it_is_a_program() -> None:
    command = [sys.executable, "-m", "icltool.cli.reference"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == render_reference()


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"# before\n{START}\nold\n{END}\nafter\n")
    for _ in range(2):
        called(monkeypatch, "--write", "--file", str(file))
        assert file.read_text() == f"# before\n{START}\n\n{render_reference()}\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["no markers", f"{END} {START}", f"{START} {START} {END}", START])
def test_missing_markers_are_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="once each"):
        replace_between_markers(text, "x")
