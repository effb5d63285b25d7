"""easy-VQA from the installed package, and from folders of the same layout."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icltool.contracts import Example
from icltool.errors import ConfigError, DataError
from icltool.execution.progress import SilentProgress
from icltool.plugin.manager import component
from icltool.testing import check_dataset
from icltool.world.easy_words import ANSWERS, dataset_words, training_words
from icltool.world.scenes import NONCE_WORDS

QUESTIONS: dict[str, list[list[Any]]] = {
    "train": [
        ["what color is the shape?", "red", 0],
        ["is there not a red shape?", "no", 0],
        ["what is the  red shape?", "circle", 0],
        ["what shape is present?", "triangle", 1],
    ],
    "test": [["what shape is present?", "rectangle", 0], ["is a circle present?", "no", 0]],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part, rows in QUESTIONS.items():
        (tmp_path / "easy" / part / "images").mkdir(parents=True)
        (tmp_path / "easy" / part / "questions.json").write_text(json.dumps(rows))
        for number in range(2):
            Image.new("RGB", (64, 64), "white").save(tmp_path / "easy" / part / "images" / f"{number}.png")
    return tmp_path / "easy"


def read(root: Path | None, **options: Any) -> dict[str, list[Example]]:
    reader = component("datasets", "easy-vqa", **options)
    return {s.name: list(s.examples) for s in reader.read(root, "vqa", Path("unused"), SilentProgress())}


def refused(root: Path | None, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        component("datasets", "easy-vqa", **options).check(root, "vqa", False)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("options", [{}, {"lexicon": 3, "kinds": "shape"}])
def test_conforms(root: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "workspace").mkdir()
    check_dataset(lambda: component("datasets", "easy-vqa", **options), root, "vqa", tmp_path / "workspace")


def test_examples(root: Path) -> None:
    splits = read(root)
    assert list(splits) == ["train", "validation"]
    assert splits["train"][1] == Example(
        id=2,
        image=str(root / "train" / "images" / "0.png"),
        image_id=0,
        text="what is the red shape?",
        label="circle",
        references=("circle",) * 10,
        question="what is the red shape?",
        group="train-0",
        question_type="shape",
        answer_type="shape",
    )
    assert [(e.id, e.question_type) for e in splits["train"]] == [(0, "colour"), (2, "shape"), (3, "shape")]
    (query,) = splits["validation"]
    assert (query.id, query.image_id, query.group) == (0, 10_000, "test-0")  # its number in the package is 0, too


def test_kinds(root: Path) -> None:
    assert [e.id for e in read(root, kinds="colour, yes-no")["train"]] == [0, 1]
    assert [e.label for e in read(root, kinds=("yes-no",))["validation"]] == ["no"]
    with pytest.raises(ConfigError, match="dataset 'easy-vqa': kinds must be a list of 'colour', 'shape' or 'yes-no'"):
        component("datasets", "easy-vqa", kinds="size")


def test_a_lexicon_replaces_answers_and_nothing_else(root: Path) -> None:
    kinds, words = "colour,shape,yes-no", dataset_words(3)
    plain, nonce = read(root, kinds=kinds), read(root, kinds=kinds, lexicon=3)
    for split, examples in nonce.items():
        for one, other in zip(plain[split], examples, strict=True):
            assert other.label == words[one.label]
            assert other.references == (other.label,) * 10
            assert (one.id, one.image, one.question, one.question_type) == (
                other.id,
                other.image,
                other.question,
                other.question_type,
            )
    assert read(root, lexicon=4)["train"] != read(root, lexicon=3)["train"]


@pytest.mark.parametrize("seed", range(20))
def test_no_answer_has_its_word_of_the_training(seed: int) -> None:
    words, known = dataset_words(seed), training_words()
    assert list(words) == list(known) == [answer for answers in ANSWERS.values() for answer in answers]
    assert len(set(words.values())) == 13
    assert set(words.values()) <= set(NONCE_WORDS)
    assert not any(words[answer] == known[answer] for answer in words)


def test_the_installed_package() -> None:
    reader = component("datasets", "easy-vqa", kinds="colour,shape,yes-no")
    assert reader.check(None, "vqa", False).remarks == ()
    splits = read(None, kinds="colour,shape,yes-no")
    counts = {name: Counter(e.question_type for e in examples) for name, examples in splits.items()}
    assert counts == {
        "train": {"yes-no": 28_407, "colour": 5_166, "shape": 5_002},
        "validation": {"yes-no": 7_136, "colour": 1_280, "shape": 1_257},
    }
    images = {name: {e.image_id for e in examples} for name, examples in splits.items()}
    assert (len(images["train"]), len(images["validation"])) == (4_000, 1_000)
    assert not images["train"] & images["validation"]
    assert len({e.question for e in splits["train"]}) == 107


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    error = refused(None)
    assert (error.message, error.hint) == ("data set easy-vqa needs the package easy-vqa", "`pip install easy-vqa`")


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.message == f"no easy-VQA in {tmp_path}: there is no train/questions.json"
    assert error.hint == "leave out --root to read the installed package easy-vqa"


def test_a_count_that_is_not_the_official_one_is_noted(root: Path) -> None:
    report = component("datasets", "easy-vqa").check(root, "vqa", True)
    assert report.remarks == (
        "train/questions.json has 4 questions; the official split has 38,575",
        "test/questions.json has 2 questions; the official split has 9,673",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[", "cannot be read: "),
        ("{}", "is not a list of questions"),
        ('[["what?", "red", 0], ["what?", "purple", 1]]', "row 1 is not a question, a known answer and an image id"),
        ('[["what?", "red", "0"]]', "row 0 is not a question, a known answer and an image id"),
        ('[[" ", "red", 0]]', "row 0 is not a question, a known answer and an image id"),
        ('[["is it?", "no", 0]]', "has no questions of the kinds colour, shape"),
        ('[["what?", "red", 7]]', "names 1 image missing from "),
    ],
)
def test_damaged_questions(root: Path, content: str, message: str) -> None:
    file = root / "train" / "questions.json"
    file.write_text(content)
    error = refused(root)
    assert error.message.startswith(str(file))
    assert message in error.message


def test_a_damaged_image(root: Path) -> None:
    image = root / "test" / "images" / "0.png"
    image.write_bytes(image.read_bytes()[:60])
    assert str(image) in refused(root).message
