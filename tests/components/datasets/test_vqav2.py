"""VQAv2, from small files in the official layout."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from icltool.components.datasets.vqav2 import VQAv2Reader, most_frequent
from icltool.contracts import DatasetReader, Example
from icltool.errors import DataError
from icltool.execution.progress import SilentProgress
from tests.components.datasets.builders import (
    answers_file,
    captions_content,
    edit,
    questions_file,
    truncate,
    vqa_image,
    write_json,
    write_vqa,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_vqa(tmp_path / "data")


def read(root: Path | None) -> dict[str, list[Example]]:
    splits = {}
    for split in VQAv2Reader().read(root, "vqa", Path("unused"), SilentProgress()):
        splits[split.name] = list(split.examples)
        assert split.count == len(splits[split.name])
    return splits


def refused(root: Path | None, verify: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        VQAv2Reader().check(root, "vqa", verify)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_satisfies_the_protocol() -> None:
    assert isinstance(VQAv2Reader(), DatasetReader)


def test_examples_by_image_and_question(root: Path) -> None:
    splits = read(root)
    assert list(splits) == ["train", "validation"]
    train = splits["train"]
    assert [(e.image_id, e.id) for e in train] == [(9, 9000), (9, 9001), (139, 139000)]
    first = train[0]
    assert first.question == first.text == "what is this?"
    assert first.label == "cat"
    assert first.references == ("cat",) * 8 + ("dog", "animal")
    assert first.image == str(vqa_image(root, "train", 9))
    assert (first.question_type, first.answer_type, first.group) == ("what", "other", "")
    assert [e.label for e in splits["validation"]] == ["skiing"]


def test_root_may_be_the_folder_itself(root: Path) -> None:
    one, other = VQAv2Reader().find(root / "vqav2"), VQAv2Reader().find(root)
    assert (one.questions, one.answers, one.images.folders) == (other.questions, other.answers, other.images.folders)


def test_folders_from_environment(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco = tmp_path / "elsewhere" / "coco"
    coco.parent.mkdir()
    shutil.move(root / "mscoco", coco)
    monkeypatch.setenv("VQAV2_PATH", str(root / "vqav2"))
    error = refused(None)
    assert error.message.startswith("no COCO 2014 images for VQAv2: ")
    assert "COCO_PATH" in str(error.hint)
    monkeypatch.setenv("COCO_PATH", str(coco))
    assert read(None)["train"][0].image.startswith(str(coco / "mscoco2014" / "train2014"))
    assert coco / "mscoco2014" in VQAv2Reader().check(None, "vqa", verify=False).files


def test_report_names_files_and_unofficial_counts(root: Path) -> None:
    report = VQAv2Reader().check(root, "vqa", verify=True)
    read = [f(root, split) for split in ("train", "val") for f in (questions_file, answers_file)]
    assert report.files == tuple(read)
    assert report.remarks == (
        "v2_OpenEnded_mscoco_train2014_questions.json has 3 answered questions; the official split has 443,757",
        "v2_OpenEnded_mscoco_val2014_questions.json has 1 answered question; the official split has 214,354",
    )


def test_groups_are_of_images(root: Path) -> None:
    write_json(root / "vqav2" / "near_duplicates.json", {"train": {"9": "cats"}})
    assert [e.group for e in read(root)["train"]] == ["cats", "cats", ""]


def test_nothing_there(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.message.startswith(f"no VQAv2 in {tmp_path}: ")
    assert "v2_Questions_Train_mscoco.zip" in str(error.hint)


def test_missing_files_and_folders_are_listed(root: Path) -> None:
    answers_file(root, "train").unlink()
    questions_file(root, "val").unlink()
    assert refused(root).message == (
        f"{root / 'vqav2'} lacks v2_mscoco_train2014_annotations.json, v2_OpenEnded_mscoco_val2014_questions.json"
    )


def test_missing_image_folder(root: Path) -> None:
    shutil.rmtree(root / "mscoco" / "mscoco2014" / "val2014")
    assert refused(root).message == f"{root / 'mscoco' / 'mscoco2014'} lacks val2014"


def test_questions_in_place_of_annotations(root: Path) -> None:
    shutil.copy(questions_file(root, "train"), answers_file(root, "train"))
    assert refused(root).message == f"{answers_file(root, 'train')} holds questions, not answers"


def test_annotations_in_place_of_questions(root: Path) -> None:
    shutil.copy(answers_file(root, "train"), questions_file(root, "train"))
    assert refused(root).message == f"{questions_file(root, 'train')} holds answers, not questions"


def test_captions_in_place_of_annotations(root: Path) -> None:
    write_json(answers_file(root, "train"), captions_content({9: ["a cat"]}))
    assert refused(root).message == f"{answers_file(root, 'train')} holds captions, not answers"


@pytest.mark.parametrize("file", [questions_file, answers_file])
def test_file_that_says_another_split(root: Path, file: Any) -> None:
    shutil.copy(file(root, "val"), file(root, "train"))
    assert refused(root).message == f"{file(root, 'train')} belongs to the wrong split: val2014, not train2014"


def test_both_files_of_another_split_that_say_nothing(root: Path) -> None:
    for file in (questions_file, answers_file):
        edit(file(root, "val"), lambda content: content.pop("data_subtype"))
        shutil.copy(file(root, "val"), file(root, "train"))
    assert refused(root).message == (
        f"{questions_file(root, 'train')} belongs to the wrong split: its images are in val2014, not in train2014"
    )


def test_annotations_of_other_questions(root: Path) -> None:
    edit(answers_file(root, "val"), lambda content: content["annotations"][0].update(question_id=5))
    assert refused(root).message == (
        f"{answers_file(root, 'val')} answers none of the questions of {questions_file(root, 'val').name}"
    )


def test_question_without_annotation(root: Path) -> None:
    edit(answers_file(root, "train"), lambda content: content["annotations"].pop(0))
    assert refused(root).message == (
        f"{answers_file(root, 'train')} lacks 1 question of {questions_file(root, 'train').name}: 139000"
    )


def test_annotation_without_question(root: Path) -> None:
    edit(questions_file(root, "train"), lambda content: content["questions"].pop(0))
    assert refused(root).message == (
        f"{questions_file(root, 'train')} lacks 1 question that {answers_file(root, 'train').name} answers: 9001"
    )


def test_files_that_disagree_on_the_image(root: Path) -> None:
    edit(answers_file(root, "train"), lambda content: content["annotations"][0].update(image_id=9))
    assert refused(root).message.startswith(f"{answers_file(root, 'train')} gives question 139000 the image 9, ")


def test_question_listed_twice(root: Path) -> None:
    edit(questions_file(root, "train"), lambda content: content["questions"].append(content["questions"][0]))
    assert refused(root).message == f"{questions_file(root, 'train')} lists question 9001 more than once"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"answers": "yes"}, "answers are not a list of texts"),
        ({"answers": [{"answer": 3, "answer_id": 1}]}, "answers are not a list of texts"),
        ({"multiple_choice_answer": None}, "multiple_choice_answer is None"),
        ({"image_id": 1.5}, "image_id is 1.5"),
    ],
)
def test_entry_at_fault_is_named(root: Path, change: dict[str, object], fault: str) -> None:
    edit(answers_file(root, "train"), lambda content: content["annotations"][1].update(change))
    assert refused(root).message == (
        f"{answers_file(root, 'train')}: entry 1 of 'annotations' is not a list of answers: {fault}"
    )


def test_truncated_json(root: Path) -> None:
    truncate(answers_file(root, "val"))
    assert refused(root).message.startswith(f"{answers_file(root, 'val')} is cut off at line 1, column ")


def test_missing_image(root: Path) -> None:
    vqa_image(root, "train", 139).unlink()
    assert refused(root).message == (
        f"{questions_file(root, 'train')} names 1 image missing from "
        f"{vqa_image(root, 'train', 139).parent}: COCO_train2014_000000000139.jpg"
    )


def test_truncated_image(root: Path) -> None:
    truncate(vqa_image(root, "train", 139))
    assert refused(root).message.startswith(f"image {vqa_image(root, 'train', 139)} cannot be read: ")


def test_unanswered_questions_and_unusual_numbers_of_answers(tmp_path: Path) -> None:
    questions = {1: (5, "why?", []), 2: (5, "who?", [" "] * 10), 3: (5, " how\n many? ", ["two", "two", "3"])}
    root = write_vqa(tmp_path, {"train": questions, "val": {4: (6, "where?", ["here"] * 10)}})
    examples = read(root)["train"]
    assert [(e.id, e.label, e.question, e.references) for e in examples] == [
        (3, "two", "how many?", ("two", "two", "3"))
    ]
    remarks = VQAv2Reader().check(root, "vqa", verify=False).remarks
    assert remarks[:2] == (
        "v2_mscoco_train2014_annotations.json: 2 questions without an answer left out",
        "v2_mscoco_train2014_annotations.json: 1 question with more or fewer than ten answers",
    )


def test_ties_go_to_the_official_answer_then_to_the_first() -> None:
    answers = ["red", "blue", "red", "blue", "green"]
    assert most_frequent(answers, "blue") == "blue"
    assert most_frequent(answers, "green") == "red"
    assert most_frequent(answers, "") == "red"
    assert most_frequent(["", "", "x"], "") == "x"
    assert most_frequent([], "yes") == ""


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", " "]), max_size=10), st.sampled_from(["a", "b", "c", "d"]))
def test_label_is_always_among_the_most_frequent(answers: list[str], official: str) -> None:
    label = most_frequent(answers, official)
    counts = Counter(answer for answer in answers if answer.strip())
    if not counts:
        assert label == ""
        return
    best = [answer for answer, count in counts.items() if count == max(counts.values())]
    assert label in best
    assert label == official or official not in best
    if official not in best:
        assert label == min(best, key=answers.index)
