"""OK-VQA: what differs from VQAv2."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from icltool.commands.prepare.options import PrepareConfig
from icltool.commands.prepare.run import run
from icltool.components.datasets.okvqa import OKVQAReader
from icltool.contracts import DatasetReader, Example
from icltool.errors import DataError
from icltool.execution.progress import SilentProgress
from icltool.store.records import open_dataset
from tests.components.datasets.builders import QUESTIONS, edit, truncate, write_json, write_okvqa, write_vqa


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_okvqa(tmp_path / "data")


def read(root: Path | None) -> dict[str, list[Example]]:
    return {s.name: list(s.examples) for s in OKVQAReader().read(root, "vqa", Path("unused"), SilentProgress())}


def refused(root: Path | None) -> DataError:
    with pytest.raises(DataError) as caught:
        OKVQAReader().check(root, "vqa", False)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def answers(root: Path, part: str = "train") -> Path:
    return root / "okvqa" / f"mscoco_{part}2014_annotations.json"


def questions(root: Path, part: str = "train") -> Path:
    return root / "okvqa" / f"OpenEnded_mscoco_{part}2014_questions.json"


def test_satisfies_the_protocol() -> None:
    assert isinstance(OKVQAReader(), DatasetReader)


def test_answers_are_the_ones_that_the_official_evaluation_compares(root: Path) -> None:
    splits = read(root)
    assert [(e.image_id, e.id) for e in splits["train"]] == [(9, 9000), (9, 9001), (139, 139000)]
    first = splits["train"][0]
    assert first.references == ("cat",) * 8 + ("dog", "animal")
    assert first.raw_references == ("Cat",) * 8 + ("Dog", "Animal")
    assert (first.label, first.question, first.text) == ("cat", "what is this?", "what is this?")
    assert (first.question_type, first.answer_type) == ("one", "other")
    assert [e.label for e in splits["validation"]] == ["skiing"]


def test_raw_answers_are_kept_where_all_annotators_have_one(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        by_id = {entry["question_id"]: entry["answers"] for entry in content["annotations"]}
        del by_id[9000][3]["raw_answer"]
        by_id[9001][3]["raw_answer"] = 6

    edit(answers(root), change)
    assert {e.id: e.raw_references for e in read(root)["train"]} == {9000: (), 9001: (), 139000: ("Yes",) * 10}
    assert read(root)["train"][0].references == ("cat",) * 8 + ("dog", "animal")


def test_raw_answers_and_the_metric_are_in_the_prepared_data_set(root: Path, tmp_path: Path) -> None:
    run(PrepareConfig(workspace=tmp_path / "ws", name="okvqa", root=root), SilentProgress())
    prepared = open_dataset(tmp_path / "ws" / "datasets" / "okvqa" / "vqa")
    assert prepared.metrics == (OKVQAReader.metrics["vqa"],) == ("okvqa-accuracy",)
    assert [list(prepared.split(name)) for name in ("train", "validation")] == list(read(root).values())
    assert [e.raw_references for e in prepared.split("validation")] == [("Skiing",) * 9 + ("Ski",)]


def test_ties_go_to_the_answer_given_first(tmp_path: Path) -> None:
    entries = {1: (5, "why?", ["b", "a", "a", "b"]), 2: (5, "who?", ["x"])}
    root = write_okvqa(tmp_path, {"train": entries, "val": QUESTIONS["val"]})
    assert [e.label for e in read(root)["train"]] == ["b", "x"]


def test_folders_from_environment(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco = tmp_path / "elsewhere"
    shutil.move(root / "mscoco", coco / "mscoco")
    with pytest.raises(DataError) as caught:
        OKVQAReader().find(None)
    assert "OKVQA_PATH or COCO_PATH" in str(caught.value.hint)
    monkeypatch.setenv("OKVQA_PATH", str(root / "okvqa"))
    assert refused(None).message.startswith("no COCO 2014 images for OK-VQA: ")
    monkeypatch.setenv("COCO_PATH", str(tmp_path / "gone"))
    assert f"{tmp_path / 'gone'} (COCO_PATH, not a folder)" in refused(None).message
    monkeypatch.setenv("COCO_PATH", str(coco))
    assert read(None)["train"][0].image.startswith(str(coco / "mscoco" / "mscoco2014" / "train2014"))
    shutil.move(coco / "mscoco" / "mscoco2014", tmp_path / "away")
    assert f"{coco} (COCO_PATH), nor below in " in refused(None).message
    shutil.move(tmp_path / "away", root / "coco" / "mscoco2014")
    assert read(None)["train"][0].image.startswith(str(root / "coco" / "mscoco2014" / "train2014"))


def test_images_that_have_moved_are_prepared_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(root / "mscoco", tmp_path / "first" / "mscoco")
    config = PrepareConfig(workspace=tmp_path / "ws", name="okvqa", root=root)
    states = []
    for place in ("first", "first", "second"):
        if not (tmp_path / place).exists():
            (tmp_path / "first").rename(tmp_path / place)
        monkeypatch.setenv("COCO_PATH", str(tmp_path / place))
        states.append(run(config, SilentProgress()).states["vqa"])
    assert states == ["prepared", "up to date", "prepared"]
    folder = tmp_path / "ws" / "datasets" / "okvqa" / "vqa"
    assert Path(open_dataset(folder).split("train")[0].image).is_file()


def test_official_counts(root: Path) -> None:
    assert OKVQAReader().check(root, "vqa", verify=True).remarks == (
        "OpenEnded_mscoco_train2014_questions.json has 3 answered questions; the official split has 9,009",
        "OpenEnded_mscoco_val2014_questions.json has 1 answered question; the official split has 5,046",
    )


def test_it_is_not_taken_for_vqav2_beside_it(root: Path) -> None:
    write_vqa(root, {"train": {8000: (9, "why?", ["because"])}, "val": QUESTIONS["val"]})
    assert len(read(root)["train"]) == 3


def test_nothing_there_and_something_missing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    error = refused(tmp_path / "empty")
    assert error.message.startswith(f"no OK-VQA in {tmp_path / 'empty'}: ")
    assert "OpenEnded_mscoco_train2014_questions.json.zip" in str(error.hint)
    answers(root, "val").unlink()
    assert refused(root).message == f"{root / 'okvqa'} lacks mscoco_val2014_annotations.json"


def test_questions_without_annotation_and_the_reverse(root: Path) -> None:
    whole = answers(root).read_bytes()
    edit(answers(root), lambda content: content["annotations"].pop(0))
    assert refused(root).message == f"{answers(root)} lacks 1 question of {questions(root).name}: 139000"
    answers(root).write_bytes(whole)
    edit(questions(root), lambda content: content["questions"].pop(0))
    assert refused(root).message == f"{questions(root)} lacks 1 question that {answers(root).name} answers: 9001"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda entry: entry.pop("answers"), "it has no answers"),
        (lambda entry: entry["answers"][3].pop("answer"), "answers are not a list of texts"),
        (lambda entry: entry.update(answers=None), "answers are not a list of texts"),
    ],
)
def test_missing_answers(root: Path, change: Any, fault: str) -> None:
    edit(answers(root), lambda content: change(content["annotations"][1]))
    assert refused(root).message == f"{answers(root)}: entry 1 of 'annotations' is not a list of answers: {fault}"


def test_empty_answers_are_left_out_of_the_questions(tmp_path: Path) -> None:
    entries = {1: (5, "why?", []), 2: (5, "wer?", ["", "Müller 😀", ""])}
    root = write_okvqa(tmp_path, {"train": entries, "val": QUESTIONS["val"]})
    assert [(e.id, e.label, e.references) for e in read(root)["train"]] == [(2, "Müller 😀", ("", "Müller 😀", ""))]
    assert OKVQAReader().check(root, "vqa", False).remarks[:2] == (
        "mscoco_train2014_annotations.json: 1 question without an answer left out",
        "mscoco_train2014_annotations.json: 1 question with more or fewer than ten answers",
    )


def test_cut_file_and_groups(root: Path) -> None:
    write_json(root / "okvqa" / "near_duplicates.json", {"train": {"9": "cats"}})
    assert [e.group for e in read(root)["train"]] == ["cats", "cats", ""]
    truncate(questions(root, "val"))
    assert refused(root).message.startswith(f"{questions(root, 'val')} is cut off at line 1, column ")
