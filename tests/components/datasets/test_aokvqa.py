"""A-OKVQA, from made-up questions in the official layout."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.components.datasets.aokvqa import AokvqaOptions, AokvqaReader
from icltool.components.datasets.labelled_rows import whole_or_code
from icltool.components.metrics.accuracy import Accuracy
from icltool.components.metrics.aokvqa_accuracy import AokvqaAccuracy
from icltool.errors import DataError
from icltool.testing import check_dataset
from tests.components.datasets.builders import edit, read_all, write_image, write_json


def question(split: str, number: int, **changes: Any) -> dict[str, Any]:
    return {
        "split": split,
        "image_id": number,
        "question_id": f"{number:03d}aBcDeFgHiJkLmNoPqRs",
        "question": "What is the man by the bags waiting for?",
        "choices": ["train", "cab", "delivery", "bus"],
        "correct_choice_idx": 1,
        "direct_answers": ["taxi"] * 4 + ["cab"] * 5 + ["ride"],
        "difficult_direct_answer": number % 2 == 0,
        "rationales": ["He stands at the kerb.", "He has luggage.", "A cab stops there."],
        "image": f"coco/{'train' if number > 5 else 'val'}2014/COCO_{'train' if number > 5 else 'val'}2014_{number:012d}.jpg",
        **changes,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, numbers in (("train", (139, 2)), ("val", (285, 4))):
        write_json(tmp_path / f"aokvqa_v1p0_{split}.json", [question(split, number) for number in numbers])
        for number in numbers:
            write_image(tmp_path / f"{split}2017" / f"{number:012d}.jpg")
    return tmp_path


def reader(**options: Any) -> AokvqaReader:
    return AokvqaReader(AokvqaOptions(**options))


@pytest.mark.parametrize("task", ["multiple-choice", "vqa"])
def test_it_conforms(task: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_dataset(reader(), root, task, tmp_path_factory.mktemp("ws"))


def test_both_tasks(root: Path) -> None:
    ranked, asked = (read_all(reader(), root, task) for task in ("multiple-choice", "vqa"))
    first = ranked["train"][0]
    assert (first.label, first.references, first.choices) == ("cab", ("cab",), ("train", "cab", "delivery", "bus"))
    assert (first.id, first.image_id) == (whole_or_code("139aBcDeFgHiJkLmNoPqRs"), 139)
    assert first.image == str(root / "train2017" / "000000000139.jpg")
    assert first.rationale == "He stands at the kerb."
    free = asked["train"][0]
    assert (free.label, len(free.references), free.choices) == ("cab", 10, ())
    assert [len(examples) for examples in ranked.values()] == [2, 2]
    assert [e.image_id for e in asked["train"]] == [139, 2]  # one that is difficult is a demonstration, but no query
    assert [e.image_id for e in asked["validation"]] == [285]
    everything = read_all(reader(rationale="all"), root, "vqa")["train"][0]
    assert everything.rationale == "He stands at the kerb. He has luggage. A cab stops there."
    remarks = reader().check(root, "vqa", True).remarks
    assert "aokvqa_v1p0_val.json: 1 question marked difficult to answer directly left out" in remarks


def test_the_images_of_2014(root: Path) -> None:
    for number in (139, 2, 285, 4):
        part = "train" if number > 5 else "val"
        write_image(root / "images" / f"{part}2014" / f"COCO_{part}2014_{number:012d}.jpg")
    examples = read_all(reader(images="2014"), root, "vqa")["train"]
    names = ["train2014/COCO_train2014_000000000139.jpg", "val2014/COCO_val2014_000000000002.jpg"]
    assert [e.image for e in examples] == [str(root / "images" / name) for name in names]
    reader(images="2014").check(root, "vqa", True)
    (root / "aokvqa" / "annotations").mkdir(parents=True)  # where LAVIS has the files
    for split in ("train", "val"):
        name = f"aokvqa_v1p0_{split}.json"
        shutil.copy(root / name, root / "aokvqa" / "annotations" / name)
        (root / name).rename(root / f"{name}.away")
    assert read_all(reader(images="2014"), root, "vqa")["train"] == examples
    for split in ("train", "val"):
        (root / f"aokvqa_v1p0_{split}.json.away").rename(root / f"aokvqa_v1p0_{split}.json")
    shutil.rmtree(root / "aokvqa")
    (root / "images" / names[1]).unlink()
    with pytest.raises(DataError, match=r"names 1 image missing from .*val2014: COCO_val2014_000000000002.jpg"):
        reader(images="2014").check(root, "vqa", False)
    edit(root / "aokvqa_v1p0_train.json", lambda rows: rows[1].pop("image"))
    with pytest.raises(DataError, match=r"entry 1 .*: it names no image of COCO 2014"):
        reader(images="2014").check(root, "vqa", False)


def test_the_archives_of_coco(root: Path) -> None:
    before = read_all(reader(), root, "vqa")["train"]
    for split in ("train", "val"):
        with zipfile.ZipFile(root / f"{split}2017.zip", "w") as packed:
            for file in sorted((root / f"{split}2017").iterdir()):
                packed.write(file, file.relative_to(root))
        shutil.rmtree(root / f"{split}2017")
    after = read_all(reader(), root, "vqa")["train"]
    assert after[0].image == str(root / "train2017.zip" / "train2017" / "000000000139.jpg")
    assert [(e.id, e.image_id) for e in after] == [(e.id, e.image_id) for e in before]
    assert root / "val2017.zip" in reader().check(root, "vqa", True).files


def test_images_below_coco_path(root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any) -> None:
    coco = tmp_path_factory.mktemp("coco")
    (coco / "mscoco2017").mkdir()
    for split in ("train", "val"):
        (root / f"{split}2017").rename(coco / "mscoco2017" / f"{split}2017")
    with pytest.raises(DataError, match="no images of A-OKVQA"):
        reader().check(root, "vqa", False)
    monkeypatch.setenv("COCO_PATH", str(coco))
    report = reader().check(root, "vqa", False)
    assert coco / "mscoco2017" / "val2017" in report.files  # images elsewhere are another version
    assert "aokvqa_v1p0_train.json has 2 questions; the official split has 17,056" in report.remarks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "aokvqa_v1p0_val.json").unlink(), "aokvqa_v1p0_val.json is missing"),
        (lambda root: (root / "val2017" / "000000000285.jpg").unlink(), "names 1 image missing from .*val2017"),
        (lambda root: edit(root / "aokvqa_v1p0_val.json", lambda rows: rows[0].update(correct_choice_idx=4)),
         "entry 0 .*: correct_choice_idx 4 is none of its 4 choices"),
        (lambda root: edit(root / "aokvqa_v1p0_val.json", lambda rows: rows[1].pop("direct_answers")),
         "entry 1 .*: it has no 'direct_answers'"),
        (lambda root: edit(root / "aokvqa_v1p0_val.json", lambda rows: rows.append(rows[0])),
         "aokvqa_v1p0_val.json lists question 285aBcDeFgHiJkLmNoPqRs more than once"),
        (lambda root: shutil.copy(root / "aokvqa_v1p0_train.json", root / "aokvqa_v1p0_val.json"),
         "aokvqa_v1p0_val.json: entry 0 .*: its split is 'train', not 'val'"),
        (lambda root: edit(root / "aokvqa_v1p0_val.json", lambda rows: rows[0].update(difficult_direct_answer="false")),
         "entry 0 .*: 'false' is neither true nor false"),
        (lambda root: edit(root / "aokvqa_v1p0_val.json", lambda rows: rows[0].update(choices=["a", "", "c", "d"])),
         "entry 0 .*: a choice is empty"),
        (lambda root: edit(root / "aokvqa_v1p0_val.json", lambda rows: rows[0].update(direct_answers=[" "])),
         "entry 0 .*: it has no direct answers"),
        (lambda root: write_json(root / "aokvqa_v1p0_val.json", {}), "is not a list"),
    ],
)  # fmt: skip
def test_faults_name_file_and_entry(root: Path, change: Any, message: str) -> None:
    change(root)
    with pytest.raises(DataError, match=message) as caught:
        reader().check(root, "multiple-choice", False)
    assert "allenai.org/project/a-okvqa" in str(caught.value.hint)


def test_the_official_figures(root: Path) -> None:
    """From files in the official layout, by what was read of them."""
    fixture = Path(__file__).parents[2] / "fixtures" / "benchmarks_choices.json"
    official = json.loads(fixture.read_text("utf-8"))["aokvqa"]
    write_json(root / "aokvqa_v1p0_val.json", official["rows"])
    for row in official["rows"]:
        write_image(root / "val2017" / f"{row['image_id']:012d}.jpg", 8)
    ids = {whole_or_code(row["question_id"]): row["question_id"] for row in official["rows"]}
    ranked, asked = (read_all(reader(), root, task)["validation"] for task in ("multiple-choice", "vqa"))
    assert (len(ranked), len(asked)) == (60, 41)
    chosen = [official["multiple_choice"].get(ids[e.id], "") for e in ranked]
    figure = Accuracy().score(chosen, [e.references for e in ranked]).mean()
    assert 100 * figure == pytest.approx(official["figures"]["multiple-choice"], abs=1e-6)
    answers = [official["direct_answer"].get(ids[e.id], "") for e in asked]
    scores = AokvqaAccuracy().score(answers, [e.references for e in asked])
    assert 100 * scores.mean() == pytest.approx(official["figures"]["direct-answer"], abs=1e-6)
    each = official["direct-answer-per-question"]
    assert scores.tolist() == pytest.approx([each.get(ids[e.id], 0.0) for e in asked], abs=1e-9)


def test_from_the_files_to_the_figures(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert run(["prepare", "aokvqa", "--root", str(root), *workspace]) == 0
    prompt = tmp_path / "thought.toml"
    answer = 'answer = " {rationale} So the answer is {label}."'
    prompt.write_text(f'extract = {{ regex = "answer is (.+?)\\\\.?$" }}\n[tasks.vqa]\n{answer}')
    model = [*workspace, "--model", "tiny-idefics", "--method", "random", "--shots", "1"]
    assert run(["prompts", *model, "--task", "vqa", "--prompt", str(prompt), "--limit", "1"]) == 0
    assert "Short answer: He stands at the kerb. So the answer is cab." in capsys.readouterr().out
    for task, metrics in (("multiple-choice", {"accuracy"}), ("vqa", {"aokvqa-accuracy", "vqa-accuracy"})):
        assert run(["evaluate", *model, "--task", task, "--json"]) == 0
        [row] = json.loads(capsys.readouterr().out)["rows"]
        assert metrics <= row.keys()
