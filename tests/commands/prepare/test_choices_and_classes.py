"""Tables of questions with choices, and of images with classes, from the table to a row of results."""

from __future__ import annotations

import csv
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icltool.cli.app import run
from icltool.components.tasks import task_named
from icltool.store.records import PreparedDataset, open_dataset

COLOURS = {"red": (220, 20, 20), "green": (20, 180, 20), "blue": (20, 20, 220)}
MODEL = ["--model", "tiny-idefics", "--device", "cpu", "--shots", "2", "--method", "random"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, all different, for tables of its own."""
    (tmp_path / "zoo").mkdir()
    for number in range(24):
        size = (24, 24 + number)
        Image.new("RGB", size, COLOURS[list(COLOURS)[number % 3]]).save(tmp_path / "zoo" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place: Path, columns: list[str], rows: list[list[Any]]) -> None:
    with (place / "zoo" / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def classes(place: Path, *, split: bool = False) -> None:
    rows = [[f"{n}.png", list(COLOURS)[n % 3], "train" if n < 16 else "test"] for n in range(24)]
    columns = ["image", "label", "split"]
    write(place, columns if split else columns[:2], rows if split else [row[:2] for row in rows])


def choosing(place: Path, **changes: dict[int, str]) -> None:
    """Questions whose choices are in another order in each row; `changes` by column and number of the row."""
    rows = []
    for number in range(24):
        choices = list(COLOURS)[number % 2 :] + list(COLOURS)[: number % 2]
        row = {"image": f"{number}.png", "question": f"which, {number}?", "choices": json.dumps(choices)}
        row["answer"] = list(COLOURS)[number % 3]
        rows.append({**row, **{column: by[number] for column, by in changes.items() if number in by}})
    write(place, list(rows[0]), [list(row.values()) for row in rows])


def dataset(place: Path, task: str) -> PreparedDataset:
    return open_dataset(place / "icl-workspace" / "datasets" / "zoo" / task)


def predictions(place: Path, task: str) -> list[Any]:
    (file,) = (place / "icl-workspace" / "evaluations").glob(f"zoo-{task}-*/predictions/random-2*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("split", [True, False])
def test_images_with_labels_are_a_classification(place: Path, split: bool, capsys: pytest.CaptureFixture[str]) -> None:
    classes(place, split=split)
    assert run(["prepare", "folder", "--root", "zoo"]) == 0
    prepared = dataset(place, "classification")
    index, queries = prepared.split("train"), prepared.split("validation")
    assert all(e.text == e.label for e in index.rows(range(len(index))))
    assert {e.text for e in queries.rows(range(len(queries)))} == {""}, "a query's label never reaches its text"
    assert all(e.label in COLOURS and e.choices == tuple(sorted(COLOURS)) for e in queries.rows(range(len(queries))))
    capsys.readouterr()
    assert run(["evaluate", *MODEL, "--test-size", "2"]) == 0
    assert "chance level of accuracy: 33.3" in capsys.readouterr().out
    for row in predictions(place, "classification"):
        assert row["prompt"].count("Output:") == 3
        assert row["prompt"].endswith("Output:")
        assert "Input:" not in row["prompt"]
    assert run(["evaluate", *MODEL[:-1], "bm25"]) == 2
    error = capsys.readouterr().err
    assert "bm25 compares the text of a query, and queries of zoo (classification) have none" in error
    assert run(["prepare", "folder", "--root", "zoo"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_folders_of_classes_are_asked_for_the_class_alone(place: Path) -> None:
    for number in range(24):
        folder = place / "zoo" / list(COLOURS)[number % 3]
        folder.mkdir(exist_ok=True)
        (place / "zoo" / f"{number}.png").rename(folder / f"{number}.png")
    assert run(["prepare", "imagefolder", "--root", "zoo"]) == 0
    prepared = dataset(place, "classification")
    assert all(example.text == example.label for example in prepared.split("train").rows(range(3)))
    assert {example.text for example in prepared.split("validation").rows(range(2))} == {""}
    assert run(["evaluate", *MODEL, "--test-size", "2"]) == 0
    assert all(row["prompt"].count("Output:") == 3 for row in predictions(place, "classification"))


def test_a_table_with_texts_is_read_as_before(place: Path) -> None:
    write(place, ["image", "text", "label"], [[f"{n}.png", f"text {n}", "no" if n % 2 else "yes"] for n in range(24)])
    assert run(["prepare", "folder", "--root", "zoo", "--task", "classification"]) == 0
    prepared = dataset(place, "classification")
    assert prepared.declared is None
    assert prepared.split("validation")[0].text.startswith("text ")


@pytest.mark.parametrize("by", ["text", "letter"])
def test_questions_with_choices(place: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    choosing(place)
    assert run(["prepare", "folder", "--root", "zoo", "--task", "multiple-choice"]) == 0
    example = dataset(place, "multiple-choice").split("train")[1]
    assert sorted(example.choices) == sorted(COLOURS)
    assert example.label in example.choices
    assert example.question.startswith("which, ")
    capsys.readouterr()
    assert run(["evaluate", *MODEL, "--test-size", "2", "--rank-by", by]) == 0
    rows = predictions(place, "multiple-choice")
    assert all(set(row["log_probs"]) == set(COLOURS) for row in rows)
    assert all(("\nA. " in row["prompt"]) == (by == "letter") for row in rows)


def test_a_label_that_is_not_among_its_choices_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choosing(place, answer={3: "purple"})
    assert run(["prepare", "folder", "--root", "zoo", "--task", "multiple-choice"]) == 2
    error = capsys.readouterr().err
    assert "table.csv line 5: label 'purple' is not among the choices" in " ".join(error.split())


def test_a_task_that_no_row_fits(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choosing(place, question=dict.fromkeys(range(24), ""))
    assert run(["prepare", "folder", "--root", "zoo", "--task", "multiple-choice"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "has no row that task 'multiple-choice' can use" in error
    assert "24 empty questions left out (line 2, 3" in error


def test_a_free_answer(place: Path) -> None:
    choosing(place)
    assert run(["prepare", "folder", "--root", "zoo", "--task", "open-answer"]) == 0
    assert run(["evaluate", *MODEL, "--test-size", "2"]) == 0
    for row in predictions(place, "open-answer"):
        assert row["prompt"].endswith(" Answer:")
        assert set(row["scores"]) == {"exact-match"}


@pytest.mark.parametrize("name", ["multiple-choice", "classification"])
def test_a_copy_of_a_built_in_task_s_file_gives_the_same_answers(place: Path, name: str) -> None:
    classes(place) if name == "classification" else choosing(place)
    text = (files("icltool.components.tasks") / f"{name}.toml").read_text("utf-8")
    (place / "copy.toml").write_text(text.replace(f'name = "{name}"', 'name = "copy"'))
    assert run(["prepare", "folder", "--root", "zoo", "--task", name]) == 0
    assert run(["prepare", "folder", "--root", "zoo", "--task-file", "copy.toml"]) == 0
    for task in (name, "copy"):
        assert run(["evaluate", *MODEL, "--test-size", "3", "--task", task]) == 0
    own, copied = predictions(place, name), predictions(place, "copy")
    assert own == copied
    assert task_named(name).metrics[0] in own[0]["scores"]


def test_an_answer_is_extracted(place: Path) -> None:
    choosing(place)
    (place / "own.toml").write_text(
        'name = "own"\nfields = ["image", "question"]\nanswers = "answers"\nmetrics = ["exact-match:norm=strict"]\n'
        'extract = { regex = "(no such answer)" }\n\n[prompts.completion]\nquery = "Q:{question} A:"\nstop = ["Q", "A"]\n'
    )
    assert run(["prepare", "folder", "--root", "zoo", "--task-file", "own.toml"]) == 0
    assert run(["evaluate", *MODEL, "--test-size", "2"]) == 0
    for row in predictions(place, "own"):
        assert row["raw"]
        assert row["answer"] == ""
        assert row["scores"] == {"exact-match:norm=strict": 0}
