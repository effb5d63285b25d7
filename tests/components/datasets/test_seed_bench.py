"""SEED-Bench and SEED-Bench-2, from made-up questions in the official layouts."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run
from icltool.components.datasets.seed_bench import SeedBench2Reader, SeedBenchOptions, SeedBenchReader
from icltool.errors import DataError
from icltool.testing import check_dataset
from tests.components.datasets.builders import edit, read_all, write_image, write_json

KINDS = {"Instance Attributes": 3, "Scene Understanding": 1, "Action Recognition": 10, "In-Context Captioning": 23,
         "Text-to-Image Generation": 26}  # fmt: skip


def question(number: int, kind: int, data: Any, **changes: Any) -> dict[str, Any]:
    choices = dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), ("Red", "Blue", 7, "Grey"), strict=True))
    return {
        **choices,
        "answer": "ABCD"[number % 4],
        "data_id": data,
        "data_type": "image",
        "question": f"Which colour is door {number}?",
        "question_id": str(100_000 + number),
        "question_type_id": kind,
        **changes,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    questions = [question(n, 3 if n % 2 else 1, f"100000{n}_2000002") for n in range(6)]
    questions.append(question(9, 10, "10001.webm", data_type="video", question_id="v1001"))
    write_json(tmp_path / "SEED-Bench.json", {"questions": questions, "question_type": KINDS})
    for n in range(6):
        write_image(tmp_path / "SEED-Bench-image" / f"{n}.png")
        (tmp_path / "SEED-Bench-image" / f"{n}.png").rename(tmp_path / "SEED-Bench-image" / f"100000{n}_2000002")
    return tmp_path


def second_question(number: int, kind: int, data: Any, **changes: Any) -> dict[str, Any]:
    """An entry of SEED-Bench-2: the images of types 1 to 9 are apart from the others."""
    single = isinstance(data, str)
    own = {
        "data_source": "cc3m" if kind < 10 else "SEED-Bench v2",
        "level": "L1" if kind < 23 else "L2",
        "version": "v2",
    }
    named = {"data_type": "Single Image" if single else "Multiple Images", "question_id": f"{kind}_{number}"}
    return question(number, kind, data, **{**own, **named, **changes})


@pytest.fixture
def second(tmp_path: Path) -> Path:
    images = ["task23/a_1/1.jpg", "task23/a_1/2.jpg", "task23/a_1/3.jpg"]
    frames = [f"task19/x/{n}.png" for n in range(1, 9)]
    questions = [
        second_question(0, 23, images, question="<img>: blue, not <image>. <img>: orange. <img>:"),
        second_question(1, 1, "10_20"),
        second_question(2, 20, "a/b.mp4", data_type="Video"),
        {"question_id": "25_3", "question_type_id": 25, "choice_a": ["1.jpg"], "data_type": "Image Generation"},
        second_question(4, 17, ["task17/7.jpg", "task17/8.jpg"]),
        second_question(5, 19, frames, data_type="Video"),
    ]
    write_json(tmp_path / "SEED-Bench_v2_level1_2_3.json", {"questions": questions, "question_type": KINDS})
    for image in (*images, "task17/7.jpg", "task17/8.jpg", *frames):
        write_image(tmp_path / "SEED-Bench-2-image" / image)
    write_image(tmp_path / "cc3m-image" / "10_20.png")
    (tmp_path / "cc3m-image" / "10_20.png").rename(tmp_path / "cc3m-image" / "10_20")
    return tmp_path


@pytest.mark.parametrize("index", [None, 0.5])
def test_both_conform(index: float | None, root: Path, second: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for kind in (SeedBenchReader, SeedBench2Reader):
        reader = kind(SeedBenchOptions(index=index))
        check_dataset(reader, root, "multiple-choice", tmp_path_factory.mktemp("ws"))


def test_questions_as_they_are_in_the_file(root: Path) -> None:
    [examples] = read_all(SeedBenchReader(SeedBenchOptions()), root, "multiple-choice").values()
    assert [e.label for e in examples] == ["Red", "Blue", "7", "Grey", "Red", "Blue"]
    assert examples[1].choices == ("Red", "Blue", "7", "Grey")
    assert examples[1].image == str(root / "SEED-Bench-image" / "1000001_2000002")
    assert [e.aspects["type"] for e in examples[:2]] == ["Scene Understanding", "Instance Attributes"]
    remarks = SeedBenchReader(SeedBenchOptions()).check(root, "multiple-choice", True).remarks
    assert remarks == (
        "SEED-Bench.json has 7 questions; the official split has 19,242",
        "SEED-Bench.json: 1 question about a video left out",
    )


def test_a_share_of_the_images_is_the_index_set(root: Path) -> None:
    splits = read_all(SeedBenchReader(SeedBenchOptions(index=1 / 3)), root, "multiple-choice")
    assert [len(examples) for examples in splits.values()] == [2, 4]
    assert not {e.image for e in splits["train"]} & {e.image for e in splits["validation"]}
    other = read_all(SeedBenchReader(SeedBenchOptions(index=1 / 3, seed=3)), root, "multiple-choice")
    assert other["train"] != splits["train"]


def test_several_images_in_a_question(second: Path) -> None:
    [examples] = read_all(SeedBench2Reader(SeedBenchOptions()), second, "multiple-choice").values()
    placed, one, before, frames = examples
    assert placed.question == "<image>: blue, not < image>. <image>: orange. <image>:"
    assert (placed.images_in_text, len(placed.images)) == (True, 3)
    assert (one.images_in_text, len(one.images)) == (False, 1)
    assert one.image == str(second / "cc3m-image" / "10_20")
    assert (one.aspects, placed.aspects) == (
        {"type": "Scene Understanding", "level": "L1"},
        {"type": "In-Context Captioning", "level": "L2"},
    )
    assert (before.images_in_text, len(before.images), before.image) == (
        *(False, 2),
        str(second / "SEED-Bench-2-image" / "task17" / "7.jpg"),
    )
    assert (frames.images_in_text, len(set(frames.image_ids))) == (False, 8)
    remarks = SeedBench2Reader(SeedBenchOptions()).check(second, "multiple-choice", True).remarks
    assert remarks == (
        "SEED-Bench_v2_level1_2_3.json: 2 questions about a video file, or with images as answers, left out",
    )
    (second / "cc3m-image" / "10_20").rename(second / "10_20")
    with pytest.raises(DataError, match=r"names 1 image missing from .*/cc3m-image: 10_20"):
        SeedBench2Reader(SeedBenchOptions()).check(second, "multiple-choice", False)
    (second / "10_20").rename(second / "cc3m-image" / "10_20")
    file = second / "SEED-Bench_v2_level1_2_3.json"
    edit(file, lambda content: content["questions"][1].update(data_source="coco"))
    with pytest.raises(DataError, match=r"entry 1 .*: its data_source is 'coco', which is none of cc3m, SEED-Bench v2"):
        SeedBench2Reader(SeedBenchOptions()).check(second, "multiple-choice", False)
    edit(file, lambda content: content["questions"][1].update(data_source="cc3m"))
    edit(file, lambda content: content["questions"][0]["data_id"].pop())
    with pytest.raises(DataError, match="question 23_0 has 2 images and places for 3"):
        SeedBench2Reader(SeedBenchOptions()).check(second, "multiple-choice", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.unlink(), "SEED-Bench.json is missing"),
        (lambda file: (file.parent / "SEED-Bench-image" / "1000003_2000002").unlink(), "names 1 image missing from"),
        (lambda file: edit(file, lambda c: c["questions"][1].update(answer="E")), "entry 1 .*: its answer is 'E'"),
        (lambda file: edit(file, lambda c: c["questions"][2].pop("choice_c")), "entry 2 .*: it has no 'choice_c'"),
        (
            lambda file: edit(file, lambda c: c["questions"].append(c["questions"][0])),
            "SEED-Bench.json lists question 100000 more than once",
        ),
        (lambda file: edit(file, lambda c: c.pop("question_type")), "has no object 'question_type'"),
        (lambda file: edit(file, lambda c: c["questions"][0].update(data_id=[])), "entry 0 .*: it has no image"),
        (lambda file: edit(file, lambda c: c["questions"][0].update(data_id=None)), "entry 0 .*: None is not a list"),
        (lambda file: shutil.rmtree(file.parent / "SEED-Bench-image"), "folder SEED-Bench-image is missing"),
    ],
)
def test_faults_name_file_and_entry(root: Path, change: Any, message: str) -> None:
    change(root / "SEED-Bench.json")
    with pytest.raises(DataError, match=message) as caught:
        SeedBenchReader(SeedBenchOptions()).check(root, "multiple-choice", False)
    assert "AILab-CVC/SEED-Bench; licence: Apache 2.0" in str(caught.value.hint)


def test_an_archive_of_images_without_endings(root: Path) -> None:
    before = read_all(SeedBenchReader(SeedBenchOptions()), root, "multiple-choice")["validation"]
    with zipfile.ZipFile(root / "SEED-Bench-image.zip", "w") as packed:
        for file in sorted((root / "SEED-Bench-image").iterdir()):
            packed.write(file, file.relative_to(root))
    shutil.rmtree(root / "SEED-Bench-image")
    after = read_all(SeedBenchReader(SeedBenchOptions()), root, "multiple-choice")["validation"]
    assert after[1].image == str(root / "SEED-Bench-image.zip" / "SEED-Bench-image" / "1000001_2000002")
    assert [(e.id, e.image_id, e.label) for e in after] == [(e.id, e.image_id, e.label) for e in before]
    assert (
        root / "SEED-Bench-image.zip" in SeedBenchReader(SeedBenchOptions()).check(root, "multiple-choice", True).files
    )


def test_images_of_cc3m_from_the_first_benchmark(second: Path) -> None:
    with zipfile.ZipFile(second / "SEED-Bench-image.zip", "w") as packed:
        packed.write(second / "cc3m-image" / "10_20", "SEED-Bench-image/10_20")
    shutil.rmtree(second / "cc3m-image")
    reader = SeedBench2Reader(SeedBenchOptions())
    _, one, *_ = read_all(reader, second, "multiple-choice")["validation"]
    assert one.image == str(second / "SEED-Bench-image.zip" / "SEED-Bench-image" / "10_20")
    assert second / "SEED-Bench-image.zip" in reader.check(second, "multiple-choice", True).files
    with zipfile.ZipFile(second / "SEED-Bench-image.zip", "w") as packed:
        packed.writestr("readme.txt", "no images")
    with pytest.raises(DataError, match=r"SEED-Bench-image.zip has no folder cc3m-image"):
        reader.check(second, "multiple-choice", True)


def test_from_the_files_to_the_figures(second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tmp_path / "ws")]
    options = ["--option", "index=0.4"]
    assert run(["prepare", "seed-bench-2", "--root", str(second), *options, *workspace]) == 0
    model = [*workspace, "--model", "tiny-idefics", "--method", "random", "--shots", "1"]
    assert run(["prompts", *model, "--rank-by", "letter"]) == 0
    assert "A. Red\nB. Blue\nC. 7\nD. Grey\nAnswer:" in capsys.readouterr().out
    assert run(["evaluate", *model, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert "accuracy" in row
    assert row["by"]["type"]


def test_texts_of_choices_are_ranked(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in the published evaluation; the images are files without endings throughout."""
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert run(["prepare", "seed-bench", "--root", str(root), "--option", "index=0.5", *workspace]) == 0
    model = [*workspace, "--model", "tiny-idefics", "--method", "random", "--shots", "1"]
    capsys.readouterr()
    assert run(["prompts", *model, "--limit", "1"]) == 0
    assert re.search(r"1000\d\d\d_2000002\]Question:Which colour is door \d\? Answer:", capsys.readouterr().out)
    assert run(["evaluate", *model, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    [file] = (tmp_path / "ws" / "evaluations").rglob("predictions/*.jsonl")
    answered = [json.loads(line) for line in file.read_text().splitlines()]
    assert {one["answer"] for one in answered} <= {"Red", "Blue", "7", "Grey"}
    right = [one["answer"] == one["references"][0] for one in answered]
    assert row["accuracy"] == pytest.approx(100 * sum(right) / len(right))
