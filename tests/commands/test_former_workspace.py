"""A workspace that an earlier icltool wrote, of the time before `icltool/commands`: it is gone on with, exported and reported.

Its prepared data set is left out (it names the places of its images): made anew, it is the same. Everything else is its own.
"""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import pytest

from icltool.cli.app import run
from icltool.store.evaluations import read_evaluation

FORMER = Path(__file__).parents[1] / "fixtures" / "former_workspace.tar.gz"
EVALUATION = "shapes-caption-tiny-idefics-a6592f59"
SAME = ["--dataset=shapes", "--task=caption", "--model=tiny-idefics", "--encoder=tiny-clip"]


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("former")
    with tarfile.open(FORMER) as archive:
        for member in archive:
            assert member.isfile() or member.isdir()
            assert not member.name.startswith("/")
            assert ".." not in member.name
        archive.extractall(folder, filter="data")
    arguments = ["--option=index_images=40", "--option=validation_images=8"]
    assert run(["prepare", "shapes", "--quiet", f"--workspace={folder / 'ws'}", *arguments]) == 0
    return folder / "ws"


def figures(former: Path) -> dict[tuple[str, int], float]:
    results = read_evaluation(former / "evaluations" / EVALUATION).results
    return {(r.method, r.shots): r.metrics["cider"].mean for r in results}


def test_evaluations_go_on(former: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    before = figures(former)
    assert before["i2i", 2] == pytest.approx(257.2, abs=0.05)
    call = [
        "evaluate",
        *SAME,
        f"--workspace={former}",
        "--method=zero-shot,i2i,lever-lm",
        "--shots=1,2",
        "--test-size=4",
    ]
    assert run(call) == 0
    out = capsys.readouterr().out
    assert "up to date: 3 of 5 settings were evaluated before" in " ".join(out.split())
    assert [line for line in out.splitlines() if len(line) > 80 and str(former) not in line] == []
    assert [line for line in out.splitlines() if line.startswith("Difference from ")] == [
        "Difference from zero-shot on the same queries"
    ]
    after = figures(former)
    assert {key: after[key] for key in before if key[0] != "lever-lm"} == {
        key: value for key, value in before.items() if key[0] != "lever-lm"
    }
    for shots in (1, 2):  # whose identity did not tell the folder's place, and does now
        assert after["lever-lm", shots] == before["lever-lm", shots]


def test_the_selector_and_the_embeddings_are_read(former: Path) -> None:
    assert (
        run(["evaluate", *SAME, f"--workspace={former}", "--method=lever-lm,t2t", "--shots=1", "--test-size=2", "-q"])
        == 0
    )
    assert (
        run(["embed", "--dataset=shapes", "--task=caption", "--encoder=tiny-clip", f"--workspace={former}", "-q"]) == 0
    )


def test_sequences_are_exported_and_trained_from(former: Path, tmp_path: Path) -> None:
    target = tmp_path / "sequences.json"
    assert run(["export", "sequences", f"--workspace={former}", f"--output={target}", "-q"]) == 0
    content = json.loads(target.read_text())
    assert len(content) == 8
    assert all(len(entry["id_list"]) == 2 for entry in content.values())
    small = [f"--option={option}" for option in ("n_embd=8", "n_head=1", "n_layer=1", "epochs=1", "batch_size=4")]
    assert run(["train", "lever-lm", "--dataset=shapes", "--task=caption", f"--workspace={former}", *small, "-q"]) == 0


def test_results_are_exported_and_reported(former: Path, tmp_path: Path) -> None:
    page, table = tmp_path / "report.html", tmp_path / "results.csv"
    assert run(["report", f"--workspace={former}", f"--output={page}", "-q"]) == 0
    evaluation = former / "evaluations" / EVALUATION
    assert "zero-shot" in page.read_text(encoding="utf-8")
    call = ["export", "results", f"--workspace={former}", f"--input={evaluation}", f"--output={table}", "-q"]
    assert run(call) == 0
    rows = list(csv.DictReader(table.open()))
    assert {row["method"] for row in rows} >= {"zero-shot", "i2i", "lever-lm"}
    assert run(["clean", f"--workspace={former}"]) == 0
