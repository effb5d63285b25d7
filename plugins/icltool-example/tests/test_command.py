"""`icltool check-jsonl`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from icltool.cli.app import run


def test_it_counts_examples_and_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    line = json.dumps({"image": "a.png", "caption": "a black square"})
    (tmp_path / "train.jsonl").write_text(f"{line}\n\n{line}\n", encoding="utf-8")
    assert run(["check-jsonl", str(tmp_path)]) == 2
    assert "validation.jsonl does not exist" in capsys.readouterr().err
    (tmp_path / "validation.jsonl").write_text(line, encoding="utf-8")
    assert run(["check-jsonl", str(tmp_path), "--verify"]) == 0
    assert capsys.readouterr().out == "train: 2 examples\nvalidation: 1 examples\n"


def test_the_overview_and_the_help_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "check-jsonl" in capsys.readouterr().out
    assert run(["check-jsonl", "--help"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("Usage: icltool check-jsonl ")
    assert "open every image" in output
