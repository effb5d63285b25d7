"""The command reference: complete, current, and the same at any width."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from icltool.cli import reference
from icltool.cli.quick_help import FILE, as_json
from icltool.cli.reference import REFERENCE, helps, main, render_reference
from icltool.config.fields import extras, flag_of
from icltool.plugin.commands import commands, stage_model, stages

ROOT = Path(__file__).resolve().parents[2]


def test_the_files_are_current() -> None:
    why = "run `python -m icltool.cli.reference --write`"
    assert REFERENCE.read_text(encoding="utf-8") == render_reference(), why
    assert FILE.read_text(encoding="utf-8") == as_json(helps()), why


def test_every_command_and_every_option_is_there() -> None:
    sections = {part.partition("\n")[0].strip("# `"): part for part in ("\n" + render_reference()).split("\n## ")}
    shared = sections["Shared options"]
    for name in commands():
        assert f"icltool {name}" in sections
    for stage in stages():
        section = sections[f"icltool {stage}"]
        for name, field in stage_model(stage).model_fields.items():
            argument = extras(field).get("argument")
            flag = extras(field).get("metavar") or name.upper() if argument else flag_of(name, field)[2:]
            description = (field.description or "").split("<")[0]
            assert any(flag in line and description in line for line in (section + shared).splitlines()), flag
    for flag in ("--profile", "--set", "--workspace", "-q, --quiet", "-v, --verbose", "--json"):
        assert shared.count(f"- `{flag}") == 1


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


def test_it_writes_the_topic_of_the_guide_and_the_quick_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "REFERENCE", tmp_path / "guide" / "reference.md")
    monkeypatch.setattr(reference, "FILE", tmp_path / "help.json")
    called(monkeypatch, "--write")
    assert (tmp_path / "guide" / "reference.md").read_text(encoding="utf-8") == render_reference()
    assert (tmp_path / "help.json").read_text(encoding="utf-8") == as_json(helps())
