"""`icltool clean` as users call it: it lists, asks, and does nothing that it was not told."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.commands.clean.options import CleanConfig, Kind
from icltool.store.inventory.artefact import KINDS
from icltool.store.locking import locked
from tests.processes import Child

EMBEDDINGS = 4


def embedded(workspace: Path) -> int:
    return len(list((workspace / "embeddings").glob("*.h5")))


def clean(capsys: pytest.CaptureFixture[str], workspace: Path, *arguments: str) -> tuple[int, str, str]:
    code = run(["clean", "--workspace", str(workspace), *arguments])
    return code, *capsys.readouterr()


def answered(workspace: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """(exit code, all that was shown) of a call on a terminal, where the user types `answer`."""
    master, slave = pty.openpty()
    os.write(master, answer.encode())
    with Child(lambda: run(["clean", "--workspace", str(workspace), *arguments]), stdin=slave) as child:
        code = child.wait()
    os.close(slave)
    os.close(master)
    return code, child.out + child.err


def test_kinds_are_those_of_the_store() -> None:
    assert Kind.__args__ == KINDS  # type: ignore[attr-defined]
    assert not CleanConfig().selects


def test_without_a_choice_it_lists(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = clean(capsys, workspace)
    assert code == 0
    assert out.startswith("6 artefacts, ")
    for text in ("shapes/caption", "shapes-vqa-train-tiny-clip.h5", " ago"):
        assert text in out
    assert clean(capsys, workspace, "--yes")[0] == 0, "nothing was chosen"
    assert embedded(workspace) == EMBEDDINGS


def test_nothing_is_removed_where_nobody_can_be_asked(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("--json",)):
        code, out, err = clean(capsys, workspace, "--kind", "embeddings", *arguments)
        assert code == 2
        assert "error: nothing was removed: " in err
        assert "--yes" in err
        assert ("shapes-vqa-train" in out) == (not arguments)
    assert embedded(workspace) == EMBEDDINGS


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", EMBEDDINGS), ("\n", EMBEDDINGS)])
def test_the_question(workspace: Path, answer: str, left: int) -> None:
    code, output = answered(workspace, answer, "--kind", "embeddings")
    assert code == 0, output
    assert "remove 4 artefacts, " in output
    assert "[y/N]" in output
    assert ("removed 4 artefacts, " in output) == (left == 0)
    assert embedded(workspace) == left


def test_a_dry_run_removes_nothing(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = clean(capsys, workspace, "--kind", "embeddings", "--dry-run", "--yes")
    assert (code, embedded(workspace)) == (0, EMBEDDINGS)
    assert out.startswith("4 artefacts, ")


def test_json(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = clean(capsys, workspace, "shapes/vqa", "--yes", "--json")
    content: dict[str, Any] = json.loads(out)
    assert (code, err, content["removed"]) == (0, "", 1)
    (row,) = content["rows"]
    assert (row["kind"], row["name"], row["removed"], row["bytes"]) == (
        "datasets",
        "shapes/vqa",
        True,
        content["freed"],
    )
    assert any("needed by embeddings/" in line for line in content["notes"])
    content = json.loads(clean(capsys, workspace, "--unreachable", "--dry-run", "--json")[1])
    assert {row["name"] for row in content["rows"]} == {f"shapes-vqa-{s}-tiny-clip.h5" for s in ("train", "validation")}
    assert {row["unreachable"] for row in content["rows"]} == {"its data set shapes (vqa) is gone"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--older-than", "5m"], "--older-than must be an age such as 30d, 12h, 2w or 6mo, got '5m'"),
        (["--larger-than", "big"], "--larger-than must be a size such as 500MB, 1.5GB or 2GiB, got 'big'"),
        (["--kind", "models"], "--kind must be datasets, embeddings, "),
        (["shapes-vqa-trian-tiny-clip.h5"], "no artefact 'shapes-vqa-trian-tiny-clip.h5'"),
        (["--workspace", "none"], "workspace none does not exist"),
    ],
)
def test_mistakes_are_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = clean(capsys, workspace, *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") <= 2


def test_what_cannot_be_removed_is_told(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", refused)
    code, out, err = clean(capsys, workspace, "--kind", "embeddings", "--yes")
    assert (code, embedded(workspace)) == (2, EMBEDDINGS)
    assert "removed 0 artefacts, 0 bytes freed; 4 could not be removed" in out
    assert "shapes-vqa-train-tiny-clip.h5 is read-only" in err


def test_all_of_it_being_written(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(workspace / "embeddings" / "shapes-vqa-train-tiny-clip.h5"):
        code, out, err = clean(capsys, workspace, "shapes-vqa-train-tiny-clip.h5", "--yes")
    assert (code, embedded(workspace)) == (2, EMBEDDINGS)
    assert f"being written by process {os.getpid()}: it is not removed" in out
    assert "everything is being written by other processes" in err
