"""ScienceQA, from made-up questions in the official layout, and its official table of figures."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, cast

import pytest

from icltool.cli.app import run
from icltool.commands.evaluate.judging import Judge
from icltool.components.datasets.scienceqa import ScienceQAOptions, ScienceQAReader
from icltool.components.metrics.accuracy import Accuracy
from icltool.contracts.evaluation import Prediction
from icltool.errors import DataError
from icltool.testing import check_dataset
from tests.components.datasets.builders import edit, read_all, write_image, write_json

SPLITS = {"train": ["1", "2"], "val": ["3"], "test": ["4", "5"], "minitest": ["5"]}


def problem(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "question": f"Which is number {number}?",
        "choices": ["water", "ice", "steam"][: 2 + number % 2],
        "answer": 1,
        "hint": "",
        "image": "image.png" if number % 2 else None,
        "task": "closed choice",
        "grade": f"grade{number + 3}",
        "subject": "natural science",
        "topic": "physics",
        "category": "Matter",
        "skill": "Classify matter",
        "lecture": "Matter is solid,\nliquid or gas.",
        "solution": "Ice keeps its shape.",
        "split": next(split for split, ids in SPLITS.items() if str(number) in ids),
        **changes,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    problems = {str(number): problem(number) for number in range(1, 6)}
    problems["4"] = problem(4, hint="Say it aloud.\nTwice.", lecture="", solution="", subject="language science")
    write_json(tmp_path / "problems.json", problems)
    write_json(tmp_path / "pid_splits.json", SPLITS)
    for identifier, content in problems.items():
        if content["image"]:
            write_image(tmp_path / content["split"] / identifier / "image.png")
    return tmp_path


def reader(**options: Any) -> ScienceQAReader:
    return ScienceQAReader(ScienceQAOptions(**options))


def test_it_conforms(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_dataset(reader(), root, "multiple-choice", tmp_path_factory.mktemp("ws"))


def test_questions_as_they_are_in_the_files(root: Path) -> None:
    splits = read_all(reader(), root, "multiple-choice")
    first, second = splits["train"]
    assert (first.id, first.question, first.label) == (1, "Which is number 1?", "ice")
    assert (first.choices, second.choices) == (("water", "ice", "steam"), ("water", "ice"))
    assert (first.image, second.image) == (str(root / "train" / "1" / "image.png"), "")
    assert first.rationale == "Matter is solid, liquid or gas. Ice keeps its shape."
    hinted, other = splits["validation"]
    assert (hinted.question, hinted.text) == ("Say it aloud. Twice. Which is number 4?", "Which is number 4?")
    assert hinted.aspects == {
        **{"subject": "language science", "text context": "yes", "image context": "no", "no context": "no"},
        **{"grade": "7-12", "topic": "physics"},
    }
    assert (hinted.rationale, other.aspects["image context"]) == ("", "yes")


def test_parts_of_it(root: Path) -> None:
    assert [e.id for e in read_all(reader(queries="minitest"), root, "multiple-choice")["validation"]] == [5]
    images = read_all(reader(with_image=True), root, "multiple-choice")
    assert [[e.id for e in examples] for examples in images.values()] == [[1], [5]]


def test_what_check_says(root: Path) -> None:
    def remarks(**options: Any) -> list[tuple[str, ...]]:
        return [line.partition("; the official split has ")[::2] for line in reader(**options).check(
            root, "multiple-choice", False).remarks]  # fmt: skip

    assert remarks() == [("ScienceQA train has 2 questions", "12,726"), ("ScienceQA test has 2 questions", "4,241")]
    assert remarks(with_image=True)[1] == ("ScienceQA test has 1 question", "2,017")
    assert remarks(queries="minitest")[1] == ("ScienceQA minitest has 1 question", "424")
    assert len(remarks(queries="minitest", with_image=True)) == 1


def test_images_below_a_folder_of_images(root: Path) -> None:
    below = root / "images"
    below.mkdir()
    for split in ("train", "test"):
        (root / split).rename(below / split)
    assert read_all(reader(), root, "multiple-choice")["train"][0].image == str(below / "train" / "1" / "image.png")
    write_image(root / "test" / "5" / "image.png")
    with pytest.raises(DataError, match=r"holds images of test twice: in .*/test and in .*/images/test"):
        reader().check(root, "multiple-choice", False)


def test_archives_give_the_same_examples(root: Path) -> None:
    before = read_all(reader(), root, "multiple-choice")
    for split in ("train", "test"):
        with zipfile.ZipFile(root / f"{split}.zip", "w") as packed:
            for file in sorted((root / split).rglob("*.png")):
                packed.write(file, file.relative_to(root))
                file.unlink()
                file.parent.rmdir()
        (root / split).rmdir()
    after = read_all(reader(), root, "multiple-choice")
    assert after["train"][0].image == str(root / "train.zip" / "train" / "1" / "image.png")
    assert [e.label for e in after["validation"]] == [e.label for e in before["validation"]]
    assert not [line for line in reader().check(root, "multiple-choice", True).remarks if "official" not in line]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "pid_splits.json").unlink(), "pid_splits.json is missing"),
        (lambda root: (root / "test" / "5" / "image.png").unlink(), "problems.json names 1 image missing .*: 5/image.png"),
        (lambda root: edit(root / "problems.json", lambda p: p["4"].update(answer=2)), "question 4 is not a question: "
         "answer 2 is none of its 2 choices"),
        (lambda root: edit(root / "problems.json", lambda p: p.pop("2")), "lacks 1 question that pid_splits.json has in "
         "train: 2"),
        (lambda root: edit(root / "problems.json", lambda p: p["1"].pop("hint")), "question 1 .*: it has no 'hint'"),
        (lambda root: edit(root / "pid_splits.json", lambda s: s["test"].append("4")),
         "pid_splits.json, test, lists question 4 more than once"),
        (lambda root: edit(root / "pid_splits.json", lambda s: s.pop("test")), "has no list 'test' of texts"),
        (lambda root: edit(root / "pid_splits.json", lambda s: s["train"].append(["1"])), "no list 'train' of texts"),
        (lambda root: edit(root / "pid_splits.json", lambda s: s["test"].append("3")), "question 3 is not a question: its "
         "split is 'val', but pid_splits.json lists it in test"),
        (lambda root: edit(root / "problems.json", lambda p: p["1"].update(grade="first")), "question 1 .*: its grade is "
         "'first'"),
        (lambda root: edit(root / "problems.json", lambda p: p["1"].update(choices=["a", " "])), "a choice is empty"),
        (lambda root: edit(root / "problems.json", lambda p: p["1"].update(hint=None)), "question 1 .*: None is not a text"),
        (lambda root: write_json(root / "problems.json", []), "problems.json is not an object"),
    ],
)  # fmt: skip
def test_faults_name_file_and_question(root: Path, change: Any, message: str) -> None:
    change(root)
    with pytest.raises(DataError, match=message) as caught:
        reader().check(root, "multiple-choice", False)
    assert "scienceqa.github.io; licence: CC BY-NC-SA 4.0" in str(caught.value.hint)


def test_the_official_table(tmp_path: Path) -> None:
    """The files are read, and the answers judged, as `evaluate` does both."""
    fixture = json.loads((Path(__file__).parents[2] / "fixtures" / "benchmarks_choices.json").read_text("utf-8"))
    official = fixture["scienceqa"]
    names = [f"choice {n}" for n in range(5)]
    asked = {i: problem(1, split="test", choices=names, **content) for i, content in official["problems"].items()}
    write_json(tmp_path / "problems.json", {**asked, "0": problem(2)})
    write_json(tmp_path / "pid_splits.json", {"train": ["0"], "test": list(asked)})
    for identifier, content in asked.items():
        if content["image"]:
            write_image(tmp_path / "test" / identifier / "image.png")
    examples = read_all(reader(), tmp_path, "multiple-choice")["validation"]
    assert len(examples) == 90
    predictions = [
        cast(
            Prediction,
            {
                **{"query_id": e.id, "group": "", "scores": {}, "aspects": dict(e.aspects)},
                **{"answer": names[official["results"][str(e.id)]], "references": list(e.references)},
            },
        )
        for e in examples
    ]
    judge = Judge({"accuracy": Accuracy()})
    judged = judge.judge(predictions)
    groups = {
        "natural": ("subject", "natural science"), "social": ("subject", "social science"),
        "language": ("subject", "language science"), "has_text": ("text context", "yes"),
        "has_image": ("image context", "yes"), "no_context": ("no context", "yes"), "grade_1_6": ("grade", "1-6"),
        "grade_7_12": ("grade", "7-12"),
    }  # fmt: skip
    for name, figure in official["figures"].items():
        aspect, value = groups.get(name.removeprefix("acc_"), ("topic", name.removeprefix("acc_")))
        ours = judged["accuracy"].figure if name == "acc_average" else (
            judge.breakdown(predictions, aspect, judged)[value]["accuracy"]
        )  # fmt: skip
        assert round(ours, 2) == figure, name


def test_from_the_files_to_the_figures(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert run(["prepare", "scienceqa", "--root", str(root), *workspace]) == 0
    model = [*workspace, "--model", "tiny-idefics", "--method", "random", "--shots", "1"]
    assert run(["prompts", *model, "--rank-by", "letter"]) == 0
    shown = capsys.readouterr().out
    assert "Question:Say it aloud. Twice. Which is number 4?\nA. water\nB. ice\nAnswer:" in shown
    assert run(["evaluate", *model, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row["by"]["image context"].keys() == {"yes", "no"}
