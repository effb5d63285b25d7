"""VQAv2 with fewer validation questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icltool.components.datasets.vqav2 import VQAv2Reader
from icltool.components.datasets.vqav2_sub import VQAv2SubOptions, VQAv2SubReader, read_ids
from icltool.contracts import DatasetReader
from icltool.errors import ConfigError, DataError
from icltool.execution.progress import SilentProgress
from icltool.plugin.manager import component
from tests.components.datasets.builders import QUESTIONS, edit, questions_file, vqa_image, write_vqa

VAL = {1000 + q: (100 + q % 7, f"question {q}?", ["yes"] * 10) for q in range(40)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_vqa(tmp_path / "data", {"train": QUESTIONS["train"], "val": VAL})


def ids_of(root: Path, split: str = "validation", **options: Any) -> list[int]:
    reader = VQAv2SubReader(VQAv2SubOptions(**options)) if options else VQAv2Reader()
    for splits in reader.read(root, "vqa", Path("unused"), SilentProgress()):
        examples = list(splits.examples)
        assert splits.count == len(examples)
        if splits.name == split:
            return [example.id for example in examples]
    raise AssertionError(f"no split {split}")


def refused(root: Path, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        VQAv2SubReader(VQAv2SubOptions(**options)).check(root, "vqa", False)
    assert "\n" not in caught.value.message
    return caught.value


def test_satisfies_the_protocol() -> None:
    assert isinstance(VQAv2SubReader(VQAv2SubOptions()), DatasetReader)


def test_a_draw_that_is_always_the_same_in_the_order_of_vqav2(root: Path) -> None:
    whole = ids_of(root)
    drawn = ids_of(root, size=12)
    assert drawn == ids_of(root, size=12)
    assert len(drawn) == 12
    assert drawn == [i for i in whole if i in set(drawn)]
    assert drawn != whole[:12]
    assert drawn != ids_of(root, size=12, seed=1)
    assert set(drawn) < set(ids_of(root, size=20))
    assert ids_of(root, "train", size=12) == ids_of(root, "train")


def test_another_question_more_or_less_changes_one_at_most(root: Path) -> None:
    drawn = ids_of(root, size=12)
    for file in (questions_file(root, "val"), root / "vqav2" / "v2_mscoco_val2014_annotations.json"):
        edit(file, lambda content: [content[key].pop(5) for key in ("questions",) if key in content])
        edit(file, lambda content: _drop(content.get("annotations", []), 1005))
    assert len(set(drawn) - set(ids_of(root, size=12))) <= 1


def _drop(annotations: list[dict[str, Any]], question_id: int) -> None:
    annotations[:] = [a for a in annotations if a["question_id"] != question_id]


def test_ten_thousand_where_there_are_fewer(root: Path) -> None:
    assert ids_of(root, seed=3) == ids_of(root)
    remarks = VQAv2SubReader(VQAv2SubOptions()).check(root, "vqa", False).remarks
    name = questions_file(root, "val").name
    assert remarks[1] == f"validation: 40 questions of {name}, all of them; 10,000 were requested"
    remarks = VQAv2SubReader(VQAv2SubOptions(size=3)).check(root, "vqa", False).remarks
    assert remarks == (
        "v2_OpenEnded_mscoco_train2014_questions.json has 3 answered questions; the official split has 443,757",
        f"validation: 3 questions of {name}, drawn by seed 0",
    )


@pytest.mark.parametrize("text", ["1007\n1001\n\n 1030 \n", "[1007, 1001, 1030]", "\ufeff[1030,\n1001,1007]\n"])
def test_ids_from_a_file(root: Path, tmp_path: Path, text: str) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text(text, encoding="utf-8")
    assert sorted(ids_of(root, ids=str(ids))) == [1001, 1007, 1030]
    report = VQAv2SubReader(VQAv2SubOptions(ids=str(ids))).check(root, "vqa", False)
    assert ids in report.files
    assert report.remarks[-1] == "validation: the 3 questions of ids.txt"


def test_relative_file_of_ids(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ids.txt").write_text("1002")
    monkeypatch.chdir(tmp_path)
    assert ids_of(root, ids="ids.txt") == [1002]


def test_unknown_ids_are_named(root: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("9000\n1001\n1\n2\n3\n")  # 9000 is a training question
    assert refused(root, ids=str(ids)).message == (
        f"{ids} has 4 ids of no answered question in {questions_file(root, 'val').name}: 9000, 1, 2 and 1 more"
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has no ids"),
        ("[]", "has no ids"),
        ("1001\nx\n", "line 2 is not an id: 'x'"),
        ("-4", "line 1 is not an id: '-4'"),
        ("[1001, 1.5]", "entry 1 is not an id: '1.5'"),
        ("[1001, true]", "entry 1 is not an id: 'True'"),
        ("[1001", "is not well-formed JSON"),
        ("[" * 100_000, "is not well-formed JSON"),
        ("[[1001]]", "entry 0 is not an id: '[1001]'"),
        ("1001\n1001", "lists question 1001 more than once"),
    ],
)
def test_malformed_files_of_ids(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "ids.txt"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_ids(path)
    assert str(path) in caught.value.message
    assert fault in caught.value.message
    assert "\n" not in caught.value.message


def test_missing_file_of_ids(root: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.txt", tmp_path):
        assert refused(root, ids=str(path)).message.startswith(f"{path} cannot be read: ")
    (tmp_path / "image").write_bytes(b"\xff\xd8")
    assert refused(root, ids=str(tmp_path / "image")).message.endswith("image cannot be read: it is not text")


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": 2.5}, {"size": True}, {"size": 3, "ids": "x"}, {"seed": "x"}, {"ids": True}]
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="vqav2-sub"):
        component("datasets", "vqav2-sub", **options)


def test_images_of_questions_that_are_left_out_are_not_needed(root: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("1007")
    for image_id in range(101, 107):
        vqa_image(root, "val", image_id).unlink()
    VQAv2SubReader(VQAv2SubOptions(ids=str(ids))).check(root, "vqa", True)
    assert "names 6 images missing" in refused(root).message
