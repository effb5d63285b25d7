"""Real questions, those of easy-VQA, get the same figure by whichever way they came in: as one's own table, as hub data and in
the layout of VQAv2."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from icltool.cli.app import run
from icltool.components.metrics.vqa_accuracy import normalise
from icltool.contracts import Example, GenerationOptions, Prompt
from icltool.plugin.manager import load_registry
from icltool.store.evaluations import read_predictions
from tests.components.datasets.builders import write_vqa
from tests.components.datasets.hub_builders import IMAGE, TEXT, write_parquet
from tests.testing.test_check_models import HashModel

easy_vqa = pytest.importorskip("easy_vqa")

#: split -> (image id, question, answer, image) in the package's order
Rows = dict[str, list[tuple[int, str, str, Path]]]
#: (the metric, the answer to each question)
Answers = tuple[float, list[str]]
COUNTS = {"train": 300, "val": 200}
MODEL = ["--dataset=easy", "--task=vqa", "--model=majority"]


@pytest.fixture(scope="module")
def rows() -> Rows:
    read = {
        "train": (easy_vqa.get_train_questions, easy_vqa.get_train_image_paths),
        "val": (easy_vqa.get_test_questions, easy_vqa.get_test_image_paths),
    }
    by_split: Rows = {}
    for split, (questions, images) in read.items():
        paths = images()
        texts, answers, ids = (part[: COUNTS[split]] for part in questions())
        first = {"train": 0, "val": 10_000}[split]  # the package numbers the images of each split from 0
        by_split[split] = [(first + i, t, a, Path(paths[i])) for i, t, a in zip(ids, texts, answers, strict=True)]
    return by_split


def as_table(rows: Rows, root: Path) -> list[str]:
    """One table; the images lie where the package has them."""
    root.mkdir()
    with (root / "easy.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["split", "image", "question", "answer"])
        for split, of_split in rows.items():
            table.writerows([split, image, question, answer] for _, question, answer, image in of_split)
    return ["folder", "--root", str(root), "--task=vqa"]


def as_hub_data(rows: Rows, root: Path) -> list[str]:
    splits = {
        {"train": "train", "val": "validation"}[split]: [
            {"image": {"bytes": image.read_bytes(), "path": image.name}, "question": question, "answer": answer}
            for _, question, answer, image in of_split
        ]
        for split, of_split in rows.items()
    }
    write_parquet(root, splits, {**IMAGE, "question": TEXT, "answer": TEXT})
    return ["hub", "--root", str(root), "--task=vqa"]


def as_vqav2(answers: int) -> Callable[[Rows, Path], list[str]]:
    def write(rows: Rows, root: Path) -> list[str]:
        questions = {
            split: {
                1000 * image_id + place: (image_id, question, [answer] * answers)
                for place, (image_id, question, answer, _) in enumerate(of_split)
            }
            for split, of_split in rows.items()
        }
        write_vqa(root, questions)
        for split, of_split in rows.items():
            for image_id, _, _, image in of_split:
                name = f"COCO_{split}2014_{image_id:012d}.jpg"
                shutil.copyfile(image, root / "mscoco" / "mscoco2014" / f"{split}2014" / name)
        return ["vqav2", "--root", str(root), "--task=vqa"]

    return write


class Majority(HashModel):
    """A baseline: it answers with the most frequent answer of the demonstrations, of several the first."""

    name = "majority"

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        text = "".join(f"<image>{e.text} {e.label}\n" for e in demonstrations) + f"<image>{query.text}"
        return Prompt(text, tuple(e.image for e in (*demonstrations, query)), f" {query.label}\n")

    def clean(self, task: str, text: str) -> str:
        return text.strip()

    def image_features(self, paths: Sequence[str], batch_size: int) -> list[torch.Tensor]:
        return [torch.zeros(1) for _ in paths]  # it is blind

    def answer(self, prompt: Prompt, options: GenerationOptions, seen: list[str]) -> str:
        return Counter(line.split()[-1] for line in prompt.text.split("\n")[:-1]).most_common(1)[0][0]


@pytest.fixture
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It is installed, as a plugin of its own."""
    info = tmp_path / "site" / "icltool_majority-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: icltool-majority\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[icltool]\nmajority = majority_plugin\n")
    (info.parent / "majority_plugin.py").write_text(
        "from icltool.plugin import Registration, hookimpl\n\n\n@hookimpl\ndef icltool_models():\n"
        f'    return [Registration("majority", "{__name__}:Majority", "a baseline")]\n'
    )
    monkeypatch.syspath_prepend(str(info.parent))
    load_registry.cache_clear()
    yield
    monkeypatch.undo()
    load_registry.cache_clear()


def answers(arguments: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> Answers:
    common = [f"--workspace={home}", "--quiet"]
    assert run(["prepare", *arguments, "--name=easy", *common]) == 0
    capsys.readouterr()
    assert run(["evaluate", *MODEL, "--method=bm25", "--shots=8", "--json", *common]) == 0
    content = json.loads(capsys.readouterr().out)
    [predictions] = (Path(content["path"]) / "predictions").iterdir()
    predicted = read_predictions(predictions)
    right = sum(normalise(row["answer"]) == normalise(row["references"][0]) for row in predicted)
    assert 0 < right < len(predicted) == COUNTS["val"]
    [metrics] = content["rows"]
    name = "exact-match" if len(predicted[0]["references"]) == 1 else "vqa-accuracy"
    assert metrics[name] == round(100 * right / len(predicted), 2)
    return metrics[name], [row["answer"] for row in predicted]


@pytest.mark.usefixtures("baseline")
def test_the_same_figure_three_times_and_with_ten_answers_too(
    rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = {"folder": as_table, "hub": as_hub_data, "vqav2": as_vqav2(1), "ten answers": as_vqav2(10)}
    figures = {way: answers(write(rows, tmp_path / way), tmp_path / f"{way} ws", capsys) for way, write in ways.items()}
    assert figures["folder"] == figures["hub"] == figures["vqav2"] == figures["ten answers"]
