"""`icltool doctor` on a machine in order, and on one where things are missing or broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from icltool.cli.app import run
from icltool.commands.doctor.checks import packages
from icltool.store.locking import locked
from tests.processes import PATIENCE

ROOT = Path(__file__).resolve().parents[3]


def doctor(capsys: pytest.CaptureFixture[str], workspace: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Rows by section and item."""
    assert run(["doctor", "--json", "--workspace", str(workspace)]) == 0
    content = json.loads(capsys.readouterr().out)["sections"]
    return {title: {row["item"]: row for row in rows} for title, rows in content.items()}


def test_everything_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from icltool import __version__

    sections = doctor(capsys, tmp_path)
    assert list(sections) == [
        "versions",
        "system",
        "devices",
        "memory and disk",
        "java",
        "environment",
        "variables",
        "optional packages",
        "caches",
        "ray",
        "plugins",
        "profiles",
        "workspace",
    ]
    assert sections["versions"]["icltool"]["value"] == __version__
    assert sections["versions"]["torch"]["value"] == torch.__version__.partition("+")[0]
    assert "cores" in sections["devices"]["cpu"]["value"]
    assert "free of" in sections["memory and disk"]["memory"]["value"]
    assert set(sections["optional packages"]) >= {"bitsandbytes", "tensorboard", "wandb", "flash-attn", "ray"}
    for row in sections["optional packages"].values():
        assert row["status"] == "ok" or "pip install" in row["note"]
    assert "components" in next(iter(sections["plugins"].values()))["value"]


def test_the_tables_end_with_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--workspace", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "optional packages" in output
    assert "no problems found" in output or re.search(r"^\d+ problems?:$", output, re.MULTILINE)


def test_lines_fit_into_80_columns(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["doctor", "--workspace", str(workspace)]) == 0
    sections = re.split(r"^(?:\d+ problems?:|no problems found)$", capsys.readouterr().out, flags=re.MULTILINE)[0]
    wide = [line for line in sections.splitlines() if len(line) > 80]
    assert all(max(map(len, line.split())) > 40 for line in wide), wide  # only a path is longer than its column


def test_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COCO_PATH", str(tmp_path))
    monkeypatch.setenv("VQAV2_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("OKVQA_PATH", raising=False)
    variables = doctor(capsys, tmp_path)["environment"]
    assert variables["COCO_PATH"]["status"] == "ok"
    assert variables["VQAV2_PATH"]["status"] == "problem"
    assert "does not exist" in variables["VQAV2_PATH"]["note"]
    assert variables["OKVQA_PATH"]["value"] == "not set"


def test_artefacts_of_the_workspace(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "embeddings" / "cut.h5").write_bytes(b"x" * 2500)
    with locked(workspace / "embeddings" / "shapes-vqa-train-tiny-clip.h5"):
        section = doctor(capsys, workspace)["workspace"]
    assert section["datasets"]["value"].startswith("shapes/caption, shapes/vqa (")
    assert section["sequences"]["value"] == "none"
    by_name = {a["name"]: a for a in section["embeddings"]["data"]["artefacts"]}
    assert len(by_name) == 5
    whole = by_name["shapes-caption-train-tiny-clip.h5"]
    assert (whole["schema"], whole["schema_version"], whole["state"]) == ("icltool.embeddings", 1, "complete")
    assert len(whole["fingerprint"]) == len(whole["dataset_fingerprint"]) == 32
    assert by_name["shapes-vqa-train-tiny-clip.h5"]["held_by"] == f"process {os.getpid()}"
    assert section["embeddings/cut.h5"]["status"] == "problem"
    assert "damaged" in section["embeddings/cut.h5"]["value"]


def test_every_artefact_is_in_the_json(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(23):
        (workspace / "sequences").mkdir(exist_ok=True)
        (workspace / "sequences" / f"{number}.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    section = doctor(capsys, workspace)["workspace"]
    more = {a["name"] for a in section["and more"]["data"]["artefacts"]}  # type: ignore[index]
    rows = {item.removeprefix("sequences/") for item in section if item.startswith("sequences/")}
    assert (len(more), len(rows), len(more | rows)) == (3, 20, 23)
    assert len(section["sequences"]["data"]["artefacts"]) == 23


def test_a_workspace_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = doctor(capsys, tmp_path / "a" / "b")["workspace"]
    assert "does not exist yet" in section["folder"]["value"]


def test_a_missing_dependency_says_how_to_get_it() -> None:
    assert packages.dependency("no-such-package>=2") == {
        "item": "no-such-package",
        "value": "missing",
        "status": "missing",
        "note": "pip install 'no-such-package>=2'",
    }
    old = packages.dependency("pluggy>=999")
    assert old is not None
    assert (old["status"], old["note"]) == ("problem", "pip install 'pluggy>=999'")
    assert packages.dependency("pluggy>=1; extra == 'dev'") is None


def test_a_torch_that_does_not_import_is_a_row_not_a_crash(tmp_path: Path) -> None:
    """A module called torch that fails stands first on the path; no Java; not installed as a package either."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.99: cannot open shared object file')")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    answer = subprocess.run(
        [sys.executable, "-m", "icltool", "doctor", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PATH": "", "JAVA_HOME": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    content = json.loads(answer.stdout)
    assert any("libcudart" in row["value"] for row in content["sections"]["devices"])
    assert any("libcudart" in line for line in content["problems"])
