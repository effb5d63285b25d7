"""VizWiz and TextVQA, from small files in the official layouts, and real rows in OpenFlamingo's."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.components.datasets.answered import AnsweredOptions, AnsweredReader
from icltool.components.datasets.textvqa import NO_ANSWER, TextVQAOptions, TextVQAReader
from icltool.components.datasets.vizwiz import VizWizReader
from icltool.contracts import Example, group_code
from icltool.errors import DataError
from icltool.testing import check_dataset
from tests.components.datasets.builders import edit, read_all, truncate, write_image, write_json

REAL = json.loads((Path(__file__).parents[2] / "fixtures" / "answered_rows.json").read_text("utf-8"))


def answer(text: str, confidence: str = "yes") -> dict[str, str]:
    return {"answer": text, "answer_confidence": confidence}


def vizwiz_rows(part: str) -> list[dict[str, Any]]:
    rows = [
        ("What is this?", ["mug"] * 6 + ["cup"] * 4, "other"),
        ("What is this?", ["unanswerable"] * 10, "unanswerable"),
        ("Real pun.", ["cup ", "Coca-Cola", "Coca-Cola", "cup ", "can", "tin", "box", "jar", "lid", "bar"], "other"),
    ]
    return [
        {
            "image": f"VizWiz_{part}_{number:08d}.jpg",
            "question": question,
            "answers": [answer(text, "maybe" if position % 3 else "yes") for position, text in enumerate(answers)],
            "answer_type": kind,
            "answerable": int(kind != "unanswerable"),
        }
        for number, (question, answers, kind) in enumerate(rows)
    ]


@pytest.fixture
def vizwiz(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        write_json(tmp_path / "Annotations" / f"{part}.json", vizwiz_rows(part))
        for row in vizwiz_rows(part):
            write_image(tmp_path / part / row["image"])
    return tmp_path


def textvqa_rows(part: str) -> list[dict[str, Any]]:
    start = 34_602 if part == "val" else 0
    rows = [
        ("what does it say?", "f00000000000000a", ["stop"] * 7 + ["stop sign", " stop", "halt"]),
        ("who wrote it?", "0000000000000012", ["unanswerable"] * 10),
        ("is it red?", "0000000000000012", ["answering does not require reading text in the image"] * 10),
    ]
    return [
        {"question": question, "image_id": image, "question_id": start + number, "answers": answers, "set_name": part}
        for number, (question, image, answers) in enumerate(rows)
    ]


@pytest.fixture
def textvqa(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        write_json(tmp_path / f"TextVQA_0.5.1_{part}.json", {"dataset_type": part, "data": textvqa_rows(part)})
        for row in textvqa_rows(part):
            write_image(tmp_path / "train_images" / f"{row['image_id']}.jpg")
    return tmp_path


def pack(root: Path, archive: str, *names: str) -> None:
    """Moves files and folders below `root` into a zip archive."""
    with zipfile.ZipFile(root / archive, "w") as packed:
        for name in names:
            place = root / name
            for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
                packed.write(file, file.relative_to(root))
                file.unlink()
            if place.is_dir():
                place.rmdir()


def refused(reader: AnsweredReader, root: Path, verify: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        reader.check(root, "vqa", verify)
    assert "\n" not in caught.value.message
    assert (
        "CC BY 4.0" in str(caught.value.hint)
        or "keep one" in str(caught.value.hint)
        or "same release" in str(caught.value.hint)
    )
    return caught.value


def one(name: str) -> AnsweredReader:
    return VizWizReader(AnsweredOptions()) if name == "vizwiz" else TextVQAReader(TextVQAOptions())


@pytest.mark.parametrize("name", ["vizwiz", "textvqa"])
def test_it_conforms(name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_dataset(one(name), request.getfixturevalue(name), "vqa", tmp_path_factory.mktemp("ws"))


def test_vizwiz_as_it_is_in_the_files(vizwiz: Path) -> None:
    splits = read_all(VizWizReader(AnsweredOptions()), vizwiz, "vqa")
    assert [len(examples) for examples in splits.values()] == [3, 3]
    first, none, tied = splits["validation"]
    assert (first.id, first.question, first.label, first.answer_type) == (0, "What is this?", "mug", "other")
    assert first.image == str(vizwiz / "val" / "VizWiz_val_00000000.jpg")
    assert first.image_id == group_code("VizWiz_val_00000000.jpg") != splits["train"][0].image_id
    assert (none.label, dict(none.aspects)) == ("unanswerable", {"answerable": "no"})
    assert tied.label == "cup"  # of the most frequent answers the first, stripped
    assert tied.references[:2] == ("cup ", "Coca-Cola")  # as the annotators wrote them


def test_the_first_answer_as_label(vizwiz: Path) -> None:
    edit(vizwiz / "Annotations" / "val.json", lambda rows: rows[0]["answers"].insert(0, rows[0]["answers"].pop()))
    labels = [read_all(VizWizReader(AnsweredOptions(label=label)), vizwiz, "vqa")["validation"][0].label
              for label in ("most-frequent", "first")]  # fmt: skip
    assert labels == ["mug", "cup"]


def test_textvqa_and_rows_without_an_answer(textvqa: Path) -> None:
    splits = read_all(TextVQAReader(TextVQAOptions()), textvqa, "vqa")
    assert [e.label for e in splits["train"]] == ["stop"]
    assert [e.label for e in splits["validation"]] == ["stop", "unanswerable", min(NO_ANSWER)]
    assert [e.id for e in splits["validation"]] == [34_602, 34_603, 34_604]
    assert splits["train"][0].references[8] == " stop"
    assert splits["validation"][1].image_id == group_code("0000000000000012") != 12
    everything = read_all(TextVQAReader(TextVQAOptions(keep_unanswerable=True)), textvqa, "vqa")
    assert len(everything["train"]) == 3
    remarks = TextVQAReader(TextVQAOptions()).check(textvqa, "vqa", False).remarks
    assert "TextVQA_0.5.1_train.json has 3 questions; the official split has 34,602" in remarks
    assert "TextVQA_0.5.1_train.json: 2 questions whose answer says that there is none left out" in remarks


def test_archives_give_the_same_examples(vizwiz: Path) -> None:
    before = read_all(VizWizReader(AnsweredOptions()), vizwiz, "vqa")
    pack(vizwiz, "train.zip", "train")
    pack(vizwiz, "Annotations.zip", "Annotations")
    after = read_all(VizWizReader(AnsweredOptions()), vizwiz, "vqa")
    assert [without_path(e) for e in after["train"]] == [without_path(e) for e in before["train"]]
    assert str(vizwiz / "train.zip") in after["train"][0].image
    assert set(VizWizReader(AnsweredOptions()).check(vizwiz, "vqa", True).files) >= {
        vizwiz / "train.zip",
        vizwiz / "Annotations.zip",
    }


def without_path(example: Example) -> tuple[Any, ...]:
    return example.id, example.image_id, example.label, example.references, example.question


@pytest.mark.parametrize("name", ["vizwiz", "textvqa"])
def test_real_rows_in_the_files_of_openflamingo(name: str, tmp_path: Path) -> None:
    content = REAL[name]
    for part in ("train", "val"):
        write_json(tmp_path / f"{part}_questions_vqa_format.json", content["questions_file"])
        write_json(tmp_path / f"{part}_annotations_vqa_format.json", content["annotations_file"])
        for question in content["questions_file"]["questions"]:
            own = question["image_id"]
            write_image(tmp_path / (f"train_images/{own}.jpg" if name == "textvqa" else f"{part}/{own}"))
    reader = one(name)
    assert not [r for r in reader.check(tmp_path, "vqa", True).remarks if "ten answers" in r]
    queries = read_all(reader, tmp_path, "vqa")["validation"]
    rows = content["annotations_file"]["annotations"]
    assert [e.id for e in queries] == [row["question_id"] for row in rows]
    assert [e.references for e in queries] == [tuple(a["answer"] for a in row["answers"]) for row in rows]
    assert [e.question for e in queries] == [
        " ".join(row["question"].split()) for row in content["questions_file"]["questions"]
    ]
    assert {e.answer_type for e in queries} == ({""} if name == "textvqa" else {r["question_type"] for r in rows})
    assert any(e.label != row["multiple_choice_answer"] for e, row in zip(queries, rows, strict=True))


Fault = tuple[str, Any, str]


def drop(path: str) -> Any:
    return lambda root: (root / path).unlink()


def change(path: str, how: Any) -> Any:
    return lambda root: edit(root / path, how)


FAULTS: Mapping[str, Sequence[tuple[Any, str]]] = {
    "vizwiz": [
        (drop("Annotations/val.json"), "val.json is missing"),
        (drop("val/VizWiz_val_00000001.jpg"), "names 1 image missing from"),
        (change("Annotations/val.json", lambda rows: rows[1].pop("answers")), "entry 1 is not a question with answers: "
         "it has no 'answers'"),
        (change("Annotations/val.json", lambda rows: rows[2].update(question=3)), "entry 2 .*: 3 is not a text"),
        (lambda root: write_json(root / "Annotations" / "val.json", vizwiz_rows("train")), "names 3 images missing from .*val"),
        (lambda root: write_json(root / "val_questions_vqa_format.json", {}), "has VizWiz twice"),
        (lambda root: write_json(root / "Annotations" / "val.json", {"rows": []}), "has no list"),
    ],
    "textvqa": [
        (drop("TextVQA_0.5.1_train.json"), "TextVQA_0.5.1_train.json is missing"),
        (drop("train_images/f00000000000000a.jpg"), "names 1 image missing from"),
        (change("TextVQA_0.5.1_val.json", lambda c: c["data"][1].update(question_id=34_602)), "lists question 34602 more"),
        (change("TextVQA_0.5.1_val.json", lambda c: c["data"][1].update(image_id=12)), "entry 1 .*: 12 is not a text"),
        (change("TextVQA_0.5.1_val.json", lambda c: c["data"].__setitem__(0, "x")), "entry 0 .*: it is 'x'"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fault", "message"), [(name, fault, text) for name, faults in FAULTS.items() for fault, text in faults]
)
def test_faults_name_file_and_entry(name: str, fault: Any, message: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(name)
    fault(root)
    with pytest.raises(DataError, match=message):
        one(name).check(root, "vqa", False)
    refused(one(name), root)


def test_without_a_folder_the_error_says_where_the_files_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VIZWIZ_PATH", raising=False)
    with pytest.raises(DataError, match="data set 'vizwiz' needs a folder") as caught:
        VizWizReader(AnsweredOptions()).check(None, "vqa", False)
    assert "set VIZWIZ_PATH; get Annotations.zip" in str(caught.value.hint)
    assert "licence: CC BY 4.0" in str(caught.value.hint)
    with pytest.raises(DataError, match="does not exist") as caught:
        VizWizReader(AnsweredOptions()).check(tmp_path / "no", "vqa", False)
    assert "check --root" in str(caught.value.hint)


def test_all_images_are_opened_to_verify(vizwiz: Path) -> None:
    truncate(vizwiz / "val" / "VizWiz_val_00000002.jpg")
    assert "VizWiz_val_00000002.jpg" in refused(VizWizReader(AnsweredOptions()), vizwiz, True).message


def test_files_of_openflamingo_that_do_not_belong_together(tmp_path: Path) -> None:
    content = json.loads(json.dumps(REAL["vizwiz"]))
    for part in ("train", "val"):
        write_json(tmp_path / f"{part}_questions_vqa_format.json", content["questions_file"])
        write_json(tmp_path / f"{part}_annotations_vqa_format.json", content["annotations_file"])
        (tmp_path / part).mkdir()
    edit(tmp_path / "val_annotations_vqa_format.json", lambda c: c["annotations"].pop(0))
    reader = VizWizReader(AnsweredOptions())
    with pytest.raises(DataError, match=r"val_annotations_vqa_format.json lacks 1 question of val_questions"):
        list(reader.parts(tmp_path, "vqa"))
    (tmp_path / "val_annotations_vqa_format.json").unlink()
    with pytest.raises(DataError, match=r"val_annotations_vqa_format.json is missing"):
        list(reader.parts(tmp_path, "vqa"))


def test_from_the_files_to_the_figures(vizwiz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert run(["prepare", "vizwiz", "--root", str(vizwiz), *workspace]) == 0
    model = [*workspace, "--model", "tiny-idefics", "--method", "random", "--shots", "1"]
    assert run(["prompts", *model, "--limit", "1"]) == 0
    assert "Question:What is this? Short answer:" in capsys.readouterr().out
    assert run(["evaluate", *model, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert {"vizwiz-accuracy", "vqa-accuracy"} <= row.keys()
    assert row["by"]["answer_type"].keys() == {"other", "unanswerable"}
    assert row["by"]["answerable"]["no"]["queries"] == 1
