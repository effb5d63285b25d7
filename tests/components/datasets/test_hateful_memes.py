"""Hateful Memes, from made-up rows in the official layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icltool.cli.app import run
from icltool.components.datasets.hateful_memes import CHOICES, HatefulMemesOptions, HatefulMemesReader
from icltool.components.metrics.accuracy import Accuracy
from icltool.components.metrics.auc import Auc
from icltool.contracts import DefinesTasks, Judgement
from icltool.errors import DataError
from icltool.testing import check_dataset
from tests.components.datasets.builders import read_all, write_image

ROWS: dict[str, list[dict[str, Any]]] = {
    "train": [
        {"id": 10001, "img": "img/10001.png", "label": 0, "text": "its my birthday"},
        {"id": "01002", "img": "img/01002.png", "label": 1, "text": "a made-up\nline"},
        {"id": 40003, "img": "img/40003.png", "label": 0, "text": "look at this cat"},
    ],
    "dev_seen": [
        {"id": 1267, "img": "img/01267.png", "label": 1, "text": "another line"},
        {"id": 1268, "img": "img/01268.png", "label": 0, "text": "good morning"},
    ],
    "test_unseen": [{"id": 9, "img": "img/00009.png", "text": "no label"}],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, rows in ROWS.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        for row in rows:
            write_image(tmp_path / row["img"])
    return tmp_path


def reader(**options: Any) -> HatefulMemesReader:
    return HatefulMemesReader(HatefulMemesOptions(**options))


def test_it_conforms(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_dataset(reader(), root, "classification", tmp_path_factory.mktemp("ws"))


def test_memes_as_they_are_in_the_files(root: Path) -> None:
    splits = read_all(reader(), root, "classification")
    assert [(e.id, e.text, e.label, e.choices) for e in splits["train"][:2]] == [
        (10001, "its my birthday", "no", ("no", "yes")),
        (1002, "a made-up line", "yes", ("no", "yes")),
    ]
    assert splits["validation"][0].image == str(root / "img" / "01267.png")  # padded, though the id is not
    remarks = reader().check(root, "classification", True).remarks
    assert "train.jsonl has 3 memes; the official split has 8,500" in remarks


def test_the_files_of_phase_1(root: Path) -> None:
    (root / "dev_seen.jsonl").rename(root / "dev.jsonl")
    assert [e.id for e in read_all(reader(), root, "classification")["validation"]] == [1267, 1268]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "dev_seen.jsonl").unlink(), "dev_seen.jsonl is missing"),
        (
            lambda root: (root / "img" / "01268.png").unlink(),
            "dev_seen.jsonl names 1 image missing from .*img: 01268.png",
        ),
        (
            lambda root: (root / "dev_seen.jsonl").write_text('{"id": 1'),
            "dev_seen.jsonl line 1 is not well-formed JSON",
        ),
        (lambda root: _write(root, [{**ROWS["dev_seen"][0], "label": 2}]), "line 1 is not a meme: label 2 is neither"),
        (lambda root: _write(root, [{**ROWS["dev_seen"][0], "text": " "}]), "line 1 is not a meme: its text is empty"),
        (lambda root: _write(root, ROWS["dev_seen"] + ROWS["dev_seen"]), "lists meme 1267 more than once"),
        (lambda root: _write(root, [{"id": 4, "label": 1}]), "line 1 is not a meme: it has no 'img'"),
        (lambda root: _write(root, []), "dev_seen.jsonl has no usable meme"),
    ],
)
def test_faults_name_file_and_line(root: Path, change: Any, message: str) -> None:
    change(root)
    with pytest.raises(DataError, match=message) as caught:
        reader().check(root, "classification", False)
    assert "hatefulmemeschallenge.com; licence: " in str(caught.value.hint)


def _write(root: Path, rows: list[dict[str, Any]]) -> None:
    (root / "dev_seen.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_split_without_labels_holds_no_queries(root: Path) -> None:
    with pytest.raises(DataError, match=r"test_unseen.jsonl has no labels") as caught:
        reader(queries="test_unseen").check(root, "classification", False)
    assert "queries=dev_seen" in str(caught.value.hint)


def test_the_figures_of_the_published_evaluation() -> None:
    fixture = Path(__file__).parents[2] / "fixtures" / "benchmarks_choices.json"
    memes = json.loads(fixture.read_text("utf-8"))["hateful_memes"]
    judgements = [_judged(row["label"], row["no"], row["yes"]) for row in memes["rows"]]
    weights = np.ones((1, len(judgements)))
    assert Auc().figures(judgements, weights)[0] == pytest.approx(memes["auc"], abs=1e-6)
    scores = Accuracy().score([j.answer for j in judgements], [j.references for j in judgements])
    assert scores.mean() == pytest.approx(memes["accuracy"], abs=1e-6)


def _judged(label: int, no: float, yes: float) -> Judgement:
    return Judgement("yes" if yes > no else "no", (CHOICES[label],), {"no": no, "yes": yes})


def test_from_the_files_to_the_figures(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert isinstance(reader(), DefinesTasks)
    assert run(["prepare", "hateful-memes", "--root", str(root), *workspace]) == 0
    model = [*workspace, "--model", "tiny-idefics", "--method", "random", "--shots", "1"]
    assert run(["prompts", *model, "--limit", "1"]) == 0
    assert "is an image with: 'good morning' written on it. Is it hateful? Answer:" in capsys.readouterr().out
    assert run(["evaluate", *model, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert {"auc", "accuracy"} <= row.keys()
