"""`icltool report` as users call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from icltool.cli.app import run
from tests.commands.report.page.synthetic import big_evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation folder in its workspace."""
    return big_evaluation(tmp_path_factory.mktemp("big"), 3, 2, 1, different=3)


def called(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["report", *map(str, arguments)])
    return (code, *capsys.readouterr())


def test_it_says_where_the_page_is_and_how_large(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "r.html"
    code, out, err = called(capsys, folder, "--output", output, "--max-queries", 2, "--title", "A & B")
    assert code == 0, err
    assert f"output: {output}" in out
    assert "the gallery has 2 of 3 queries" in out
    assert output.read_text(encoding="utf-8").startswith("<!")
    where = ("--workspace", folder.parent.parent, f"--output={output}", "--overwrite")
    code, out, _ = called(capsys, folder.name, *where, "--json", "--no-images")
    answer = json.loads(out)
    assert (code, answer["path"], answer["rows"][0]["queries"]) == (0, str(output), 3)


def test_refusals_are_one_line_and_a_hint(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "results.json").write_text(f"{(folder / 'results.json').read_text()[:-30]}")
    for arguments, words in (
        ((tmp_path / "absent",), "does not exist"),
        ((broken,), "results.json is truncated or malformed"),
        ((tmp_path,), "results.json does not exist"),
        ((folder, "--sequences", tmp_path / "x.h5"), "give one of the two"),
        (("--max-mb", "0"), "--max-mb must be greater than 0"),
        (("--max-queries", "some"), "--max-queries must be an integer"),
    ):
        code, out, err = called(capsys, *arguments, "--workspace", tmp_path / "ws")
        assert (code, out) == (2, "")
        assert words in " ".join(err.split())
        assert len(err.splitlines()) <= 2
