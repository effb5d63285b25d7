"""Questions with one answer each, as people's own tables have them: judged by exact match, not by VQA accuracy, which is always
0 there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from icltool.cli.app import run
from icltool.components.metrics.vqa_accuracy import normalise
from icltool.store.evaluations import read_predictions
from icltool.store.records import open_dataset
from icltool.store.sequences import SequenceFile
from tests.cli.test_bad_input import refusal

MODEL = ["--dataset=own", "--task=vqa", "--model=tiny-idefics", "--device=cpu", "--quiet"]
EVALUATE = ["evaluate", *MODEL, "--method=random", "--shots=8", "--json"]
GENERATE = ["generate", *MODEL, "--anchors=2", "--candidates=4", "--beam-size=2", "--shots=1"]


@pytest.fixture(scope="module")
def home(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a table of the small world's questions."""
    folder = tmp_path_factory.mktemp("own")
    world = open_dataset(small_world / "datasets" / "shapes" / "vqa")
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["split", "image", "question", "answer"])
        for split, count in (("train", 40), ("validation", 16)):
            table.writerows([split, e.image, e.question, e.label] for e in world.split(split).rows(range(count)))
    prepare = ["prepare", "folder", "--root", str(folder), "--name=own", "--task=vqa"]
    assert run([*prepare, f"--workspace={folder / 'ws'}", "--quiet"]) == 0
    return folder / "ws"


def test_the_default_is_exact_match_and_says_why(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run([*EVALUATE, f"--workspace={home}"]) == 0
    content = json.loads(capsys.readouterr().out)
    [row] = content["rows"]
    assert "vqa-accuracy" not in row
    rows = read_predictions(Path(content["path"]) / "predictions" / "random-8-shot-seed0.jsonl")
    right = [normalise(r["answer"]) == normalise(r["references"][0]) for r in rows]
    assert 0 < sum(right) < len(right)
    assert row["exact-match"] == pytest.approx(100 * sum(right) / len(right))
    assert any("needs 4 reference answers" in remark for remark in content["notes"])


def test_vqa_accuracy_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([*EVALUATE, "--metric=vqa-accuracy"], [*GENERATE, "--scorer=vqa-accuracy"]):
        err = refusal(capsys, *command, f"--workspace={home}")
        assert "VQA accuracy needs 4 reference answers per question, and some questions have only 1" in err
        assert "exact-match" in err


def test_a_search_by_exact_match_tells_sequences_apart(home: Path) -> None:
    target = home / "sequences" / "found.h5"
    assert run([*GENERATE, "--scorer=exact-match", f"--workspace={home}", "--anchors=12", f"--output={target}"]) == 0
    with SequenceFile.open(target) as file:
        values = file.arrays()["values"]
    assert set(np.unique(values)) == {0.0, 1.0}
