"""A task of the user's own, from its file to a row of the table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from icltool.cli.app import run
from icltool.config.tasks import task_of
from icltool.contracts import read_task
from icltool.store.prepared import open_dataset

TASK = """
name = "species"
fields = ["image", "question"]
answers = "caption"
metrics = ["exact-match"]
names = { question = "ask", caption = "animal" }
guard = ["question"]
max_new_tokens = 4

[prompts.completion]
query = "Ask:{question} Animal:"
stop = ["Ask", "Animal"]
"""
ANIMALS = {"red": "fox", "green": "frog", "blue": "whale"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images with a table, and the task's file beside it."""
    root = tmp_path / "zoo"
    root.mkdir()
    with (root / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "ask", "animal"])
        for number in range(24):
            colour = list(ANIMALS)[number % 3]
            Image.new("RGB", (24, 24), colour).resize((24, 24 + number)).save(root / f"{number}.png")
            table.writerow([f"{number}.png", f"which one, {number}?", ANIMALS[colour]])
    (tmp_path / "species.toml").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(*further: str) -> int:
    return run(["prepare", "folder", "--root", "zoo", "--task-file", "species.toml", *further])


def test_it_goes_all_the_way(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare() == 0
    folder = place / "icl-workspace" / "datasets" / "zoo" / "species"
    dataset = open_dataset(folder)
    assert task_of(dataset) == read_task(place / "species.toml")
    example = dataset.split("train")[0]
    assert example.question.startswith("which one")
    assert example.text == example.question
    assert example.label in ANIMALS.values()
    capsys.readouterr()
    ask = ["--model", "tiny-idefics", "--device", "cpu", "--test-size", "2", "--shots", "0,2", "--method", "random"]
    assert run(["evaluate", *ask]) == 0
    output = capsys.readouterr().out
    assert "zoo (species), tiny-idefics, 2 queries" in output
    assert "exact-match    0-shot" in output
    (rows,) = (place / "icl-workspace" / "evaluations").glob("zoo-species-*/predictions/random*.jsonl")
    prompts = [json.loads(line)["prompt"] for line in rows.read_text().splitlines()]
    assert len(prompts) == 2
    assert all(prompt.count("Ask:which one") == 3 and prompt.endswith("Animal:") for prompt in prompts)


def test_it_is_up_to_date_until_its_file_changes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare() == 0
    folder = place / "icl-workspace" / "datasets" / "zoo" / "species"
    before = open_dataset(folder).fingerprint
    capsys.readouterr()
    assert prepare() == 0
    assert "up to date" in capsys.readouterr().out
    (place / "species.toml").write_text(TASK.replace("Animal:", "Creature:").replace('"Animal"', '"Creature"'))
    assert prepare() == 0
    assert "up to date" not in capsys.readouterr().out
    assert open_dataset(folder).fingerprint != before, "another wording gives other results"


def test_a_registered_name_is_taken(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "species.toml").write_text(TASK.replace('"species"', '"vqa"'))
    assert prepare() == 2
    assert "a task 'vqa' already exists" in capsys.readouterr().err


def test_task_and_file_are_one_too_many(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("--task", "vqa") == 2
    assert "--task and --task-file both name" in capsys.readouterr().err


def test_a_reader_of_official_files_does_not_serve_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", "coco2017", "--task-file", "species.toml"]) == 2
    assert "'coco2017' has no task 'species'" in capsys.readouterr().err


def test_a_table_without_its_columns(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "species.toml").write_text(TASK.replace('caption = "animal"', 'caption = "beast"'))
    assert prepare() == 2
    error = capsys.readouterr().err
    assert "has no column for caption, which task 'species' needs" in error


def test_a_built_in_task_that_the_reader_does_not_name(place: Path) -> None:
    """`folder` reads any registered task; one of icltool's own is not kept with the data set."""
    columns = ["--option", "question=ask", "--option", "caption=animal"]
    assert run(["prepare", "folder", "--root", "zoo", "--task", "inference", *columns]) == 0
    dataset = open_dataset(place / "icl-workspace" / "datasets" / "zoo" / "inference")
    assert dataset.declared is None
    assert "task_definition" not in dataset.manifest
    assert dataset.split("train")[0].question.startswith("which one")


def test_without_its_file_the_hint_names_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare() == 0
    Image.new("RGB", (30, 30)).save(place / "zoo" / "0.png")
    capsys.readouterr()
    assert run(["embed", "--encoder", "tiny-clip"]) == 2
    assert f"--task-file {place / 'species.toml'}" in " ".join(capsys.readouterr().err.split())
