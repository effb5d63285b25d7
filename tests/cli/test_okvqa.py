"""OK-VQA from official files to figures, as users call the commands: with NLTK's data, and without them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.components.metrics.okvqa_tables import EXCEPTIONS
from icltool.store.evaluations import read_predictions
from icltool.store.records import open_dataset
from icltool.store.workspace import Workspace
from tests.components.datasets.builders import edit, write_okvqa, write_vqa
from tests.components.metrics.nltk_data import nltk_path, write_nltk_data

OPTIONS = ["--model=tiny-idefics", "--device=cpu", "--method=zero-shot"]
ASKED = {
    "train": {1: (5, "what shape?", ["ball"] * 10)},
    "val": {n: (n, "what shape?", ["x"] * 10) for n in (10, 11, 12)},
}
#: What ten annotators of each question are made to have typed: two of them the model's answer.
RAW = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nltk_data(tmp_path_factory.mktemp("nltk"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, frozenset[str]]:
    """(a folder with OK-VQA's files and a workspace where they are prepared, the model's answers). Read only.

    Of each question two annotators typed what the model answers, and all ten of the stemmed answers are that with "-ed".
    """
    folder = tmp_path_factory.mktemp("okvqa")
    root = write_okvqa(folder / "data", ASKED)
    prepare(folder / "ws", root)
    assert run(["evaluate", "--workspace", str(folder / "ws"), "--metric=vqa-accuracy", "--quiet", *OPTIONS]) == 0
    [path] = (folder / "ws" / "evaluations").glob("*/predictions/*.jsonl")
    answers = {row["query_id"]: row["answer"] for row in read_predictions(path)}
    shutil.rmtree(folder / "ws")

    def answered(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            answer = answers[entry["question_id"]]
            for number, given_answer in enumerate(entry["answers"]):
                given_answer["raw_answer"] = answer if number < RAW else f"other {number % 2}"
                given_answer["answer"] = f"{answer}ed"

    edit(root / "okvqa" / "mscoco_val2014_annotations.json", answered)
    prepare(folder / "ws", root)
    return folder, frozenset(answers.values())


def prepare(workspace: Path, root: Path, name: str = "okvqa") -> None:
    assert run(["prepare", name, "--root", str(root), "--workspace", str(workspace), "--quiet"]) == 0


@pytest.fixture
def workspace(prepared: tuple[Path, frozenset[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace to write into. The model's answers are words that stemming shows on."""
    folder, answers = prepared
    for answer in answers:
        monkeypatch.setitem(EXCEPTIONS, answer, f"{answer}ed")
    shutil.copytree(folder / "ws", tmp_path / "ws")
    return tmp_path / "ws"


def evaluated(capsys: pytest.CaptureFixture[str], workspace: Path, *arguments: str) -> dict[str, Any]:
    """What a program reads of `icltool evaluate`."""
    capsys.readouterr()
    assert run(["evaluate", "--workspace", str(workspace), "--json", *OPTIONS, *arguments]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def refusal(capsys: pytest.CaptureFixture[str], workspace: Path, *arguments: str) -> str:
    capsys.readouterr()
    assert run(["evaluate", "--workspace", str(workspace), *OPTIONS, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return " ".join(err.split())


def figures(report: dict[str, Any]) -> dict[str, float]:
    [row] = report["rows"]
    return {name: value for name, value in row.items() if name.endswith(("accuracy", "accuracy-raw"))}


def test_without_the_data_raw_answers_are_judged_and_with_them_the_same_answers_again(
    workspace: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of ten agree: (2 x 1/3 + 8 x 2/3) / 10 = 60 % on raw answers; all ten of the stemmed answers do."""
    why = "stemming OK-VQA's answers needs NLTK's data: wordnet is missing; averaged_perceptron_tagger_eng is missing"
    how = "`python -m nltk.downloader wordnet averaged_perceptron_tagger_eng`"
    with nltk_path(tmp_path / "nothing"):
        without = evaluated(capsys, workspace)
        assert figures(without) == {"vqa-accuracy-raw": 60.0}
        message = f"okvqa-accuracy cannot be computed here, so vqa-accuracy-raw is reported instead: {why} ({how})"
        assert message in without["notes"]
        again = evaluated(capsys, workspace)
        assert (figures(again), again["path"]) == (figures(without), without["path"])
        assert any(line.startswith("up to date: 1 of 1") for line in again["notes"])
        error = refusal(capsys, workspace, "--metric=okvqa-accuracy")
        assert why in error
        assert "python -m nltk.downloader wordnet averaged_perceptron_tagger_eng" in error
    with nltk_path(data):
        result = evaluated(capsys, workspace)
    assert figures(result) == {"okvqa-accuracy": 100.0}
    assert result["path"] == without["path"]
    assert not any("raw" in line or "prompts" in line for line in result["notes"]), "the model is not asked again"
    rows = read_predictions(Path(result["path"]) / "predictions" / "zero-shot-0-shot-seed0.jsonl")
    assert [row["scores"] for row in rows] == [{"vqa-accuracy-raw": pytest.approx(60), "okvqa-accuracy": 100}] * 3
    with nltk_path(tmp_path / "nothing"):
        last = evaluated(capsys, workspace)
    assert (figures(last), last["path"]) == (figures(without), without["path"])
    assert read_predictions(Path(result["path"]) / "predictions" / "zero-shot-0-shot-seed0.jsonl") == rows
    for row in rows:
        assert row["references"] == [f"{row['answer']}ed"] * 10
        assert row["raw_references"] == [row["answer"]] * RAW + ["other 0", "other 1"] * 4


def test_the_table_that_people_read_names_the_metric(
    workspace: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, metric, figure in (
        (tmp_path / "nothing", "vqa-accuracy-raw", "60.0"),
        (data, "okvqa-accuracy", "100.0"),
    ):
        with nltk_path(folder):
            capsys.readouterr()
            assert run(["evaluate", "--workspace", str(workspace), *OPTIONS]) == 0
        out = capsys.readouterr().out
        assert [metric, "0-shot"] in [line.split() for line in out.splitlines()]
        assert f" {figure} ±0.0" in out


def test_metrics_asked_for_by_name(
    workspace: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "okvqa-accuracy,vqa-accuracy-raw,vqa-accuracy"
    with nltk_path(tmp_path / "nothing"):
        report = evaluated(capsys, workspace, f"--metric={names}")
        assert figures(report) == {"vqa-accuracy-raw": 60.0, "vqa-accuracy": 0.0}
        assert any(line.startswith("okvqa-accuracy is missing: stemming") for line in report["notes"])
        assert not any("instead" in line for line in report["notes"])
    with nltk_path(data):
        report = evaluated(capsys, workspace, f"--metric={names}")
    assert figures(report) == {"okvqa-accuracy": 100.0, "vqa-accuracy-raw": 60.0, "vqa-accuracy": 0.0}


def test_data_sets_prepared_before_and_others_keep_the_metric_of_the_task(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Workspace(workspace).dataset_folder("okvqa", "vqa")
    assert open_dataset(folder).metrics == ("okvqa-accuracy",)
    edit(folder / "dataset.json", lambda manifest: manifest["provenance"]["inputs"].pop("metric"))
    assert open_dataset(folder).metrics == ()
    assert figures(evaluated(capsys, workspace)) == {"vqa-accuracy": 0.0}
    prepare(workspace, write_vqa(tmp_path / "vqa", ASKED), "vqav2")
    assert figures(evaluated(capsys, workspace, "--dataset=vqav2")) == {"vqa-accuracy": 0.0}
    error = refusal(capsys, workspace, "--dataset=vqav2", "--metric=vqa-accuracy-raw")
    assert "vqa-accuracy-raw reads raw references, which query 10 lacks" in error
