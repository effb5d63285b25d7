"""MMMU, from made-up questions in the official layout."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from icltool.cli.app import run
from icltool.components.datasets.mmmu import MmmuOptions, MmmuReader
from icltool.contracts import Example, open_image
from icltool.errors import ConfigError, DataError
from icltool.execution.progress import SilentProgress
from icltool.testing import check_dataset


def picture(shade: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), (shade, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{shade}.png"}


def row(identifier: str, question: str, options: str, answer: str, pictures: int, **changes: Any) -> dict[str, Any]:
    kind = "multiple-choice" if options != "[]" else "open"
    images = {f"image_{n}": picture(20 * n) if n <= pictures else None for n in range(1, 8)}
    return {
        **{"id": identifier, "question": question, "options": options, "answer": answer, "question_type": kind},
        **images,
        **changes,
    }


ROWS: dict[str, list[dict[str, Any]]] = {
    "dev": [
        row("dev_Accounting_1", "<image 1> Which one?", "['$6', '$7']", "A", 1, image_1=picture(200)),
        row("dev_Art_Theory_2", "Which year? <image 1>", "[]", "1889", 1, image_1=picture(220)),
    ],
    "validation": [
        row(
            "validation_Accounting_1",
            "<image 2> or\n<image 1>, not <image>?",
            "['$6', '<image 3>', \"it's 9\"]",
            "B",
            3,
        ),
        row("validation_Math_2", "What is <image 1>?", "[]", "['24/7', '3.429']", 1),
        row("validation_Math_3", "Again <image 1> and <image 1>?", "['yes', 'no', 'so', 'go']", "D", 2),
    ],
}


def write(root: Path, rows: dict[str, list[dict[str, Any]]] = ROWS) -> Path:
    for split, of_split in rows.items():
        subjects: dict[str, list[dict[str, Any]]] = {}
        for one in of_split:
            subjects.setdefault(one["id"].partition("_")[2].rpartition("_")[0], []).append(one)
        for subject, listed in subjects.items():
            folder = root / subject
            folder.mkdir(parents=True, exist_ok=True)
            image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            schema = pa.schema([(name, image if name.startswith("image_") else pa.string()) for name in listed[0]])
            pq.write_table(pa.Table.from_pylist(listed, schema), folder / f"{split}-00000-of-00001.parquet")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "MMMU")


def read(root: Path, task: str, workspace: Path) -> dict[str, list[Example]]:
    return {s.name: list(s.examples) for s in MmmuReader(MmmuOptions()).read(root, task, workspace, SilentProgress())}


@pytest.mark.parametrize("task", ["multiple-choice", "vqa"])
def test_it_conforms(task: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    check_dataset(MmmuReader(MmmuOptions()), root, task, tmp_path_factory.mktemp("ws"))


def shade(path: str) -> int:
    with open_image(path) as image:
        pixel: Any = image.getpixel((0, 0))
        return int(pixel[0])


def test_images_stand_where_the_texts_name_them(root: Path, tmp_path: Path) -> None:
    first, repeated = read(root, "multiple-choice", tmp_path)["validation"]
    assert first.question == "<image> or <image>, not < image>?"
    assert first.choices == ("$6", "<image>", "it's 9")
    assert (first.label, first.images_in_text) == ("B", True)  # the choice is an image
    assert [shade(path) for path in first.images] == [40, 20, 60]
    assert first.aspects == {"subject": "Accounting", "discipline": "Business"}
    # a repeated image is shown twice, one that no text names stands first
    assert repeated.question == "<image> Again <image> and <image>?"
    assert [shade(path) for path in repeated.images] == [40, 20, 20]
    assert len(set(repeated.image_ids)) == 2
    assert repeated.label == "go"


def test_open_questions(root: Path, tmp_path: Path) -> None:
    splits = read(root, "vqa", tmp_path)
    assert [(e.label, e.references) for e in splits["validation"]] == [("24/7", ("24/7", "3.429"))]
    assert splits["train"][0].aspects == {"subject": "Art Theory", "discipline": "Art & Design"}


def test_what_check_says(root: Path) -> None:
    remarks = MmmuReader(MmmuOptions()).check(root, "multiple-choice", True).remarks
    assert "validation: 1 question with images among the choices: evaluate with --rank-by letter" in remarks
    assert "MMMU validation has 3 questions; the official split has 900" in remarks
    assert "MMMU dev has no questions of Agriculture, Architecture_and_Engineering, Art and 25 more" in remarks


@pytest.mark.parametrize(
    ("answer", "references"),
    [
        ("['24/7', '3.429']", ("24/7", "3.429")),
        ("[1, 2.5]", ("1", "2.5")),
        ("[0, 1)", ("[0, 1)",)),
        ("[HA]", ("[HA]",)),
    ],
)
def test_what_is_a_list_of_answers(answer: str, references: tuple[str, ...], tmp_path: Path) -> None:
    rows = {**ROWS, "validation": [{**ROWS["validation"][1], "answer": answer}]}
    [example] = read(write(tmp_path / "MMMU", rows), "vqa", tmp_path / "ws")["validation"]
    assert example.references == references


def test_the_format_of_the_hub(root: Path, tmp_path: Path) -> None:
    """A folder whose README names the configurations, as on the hub, is opened as the hub's repository is."""
    subjects = {s: [f"{split}-*" for split in ("dev", "validation")] for s in ("Accounting", "Math", "Art_Theory")}
    write(root, {"dev": [row("dev_Math_1", "<image 1>?", "['1', '2']", "A", 1)],
                 "validation": [row("validation_Art_Theory_1", "<image 1>?", "['1', '2']", "B", 1)]})  # fmt: skip
    lines = [
        f"- config_name: {subject}\n  data_files:\n" + "".join(
            f"  - split: {split}\n    path: {subject}/{split}-*\n" for split in ("dev", "validation")
            if any((root / subject).glob(f"{split}-*"))
        )
        for subject in subjects
    ]  # fmt: skip
    (root / "README.md").write_text(f"---\nconfigs:\n{''.join(lines)}---\n")
    reader = MmmuReader(MmmuOptions(path=str(root)))
    splits = {s.name: list(s.examples) for s in reader.read(None, "multiple-choice", tmp_path, SilentProgress())}
    plain = read(root, "multiple-choice", tmp_path)
    assert {name: {e.id for e in of_split} for name, of_split in splits.items()} == {
        name: {e.id for e in of_split} for name, of_split in plain.items()
    }
    assert reader.check(None, "multiple-choice", False).files
    only_dev = "- config_name: Math\n  data_files:\n  - split: dev\n    path: Math/dev-*\n"
    (root / "README.md").write_text(f"---\nconfigs:\n{only_dev}---\n")
    with pytest.raises(DataError, match=r"MMMU has no split 'validation'"):
        reader.check(None, "multiple-choice", False)
    with pytest.raises(ConfigError, match=r"--root and path=.* exclude each other"):
        reader.check(root, "multiple-choice", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": "__import__('os')"}, "question validation_Math_3: malformed node"),
        ({"options": "'yes'"}, "question validation_Math_3: its options are not a list: 'yes'"),
        ({"answer": "E"}, "question validation_Math_3: its answer is 'E', and it has 4 choices"),
        ({"question": "<image 5>"}, "question validation_Math_3: it has a place for image 5, which it does not have"),
        ({"image_1": None, "image_2": None, "question": "?"}, "question validation_Math_3 has no image"),
        ({"id": "validation_Math_2"}, "MMMU validation lists question validation_Math_2 more than once"),
        ({"id": "dev_Math_3"}, "question dev_Math_3: ids of validation are like validation_Accounting_1"),
        ({"image_1": {"bytes": b"no image", "path": None}}, "question validation_Math_3: its image cannot be read"),
    ],
)
def test_faults_name_the_question(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = {**ROWS, "validation": [*ROWS["validation"][:2], {**ROWS["validation"][2], **change}]}
    with pytest.raises(DataError, match=message):
        MmmuReader(MmmuOptions()).check(write(tmp_path / "MMMU", rows), "multiple-choice", False)


def test_without_files(root: Path) -> None:
    for file in root.rglob("validation-*.parquet"):
        file.unlink()
    with pytest.raises(DataError, match=r"no file validation-\*.parquet in it or below") as caught:
        MmmuReader(MmmuOptions()).check(root, "vqa", False)
    assert "huggingface.co/datasets/MMMU/MMMU" in str(caught.value.hint)
    (root / "Accounting" / "dev-00000-of-00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"dev-00000-of-00001.parquet cannot be read"):
        MmmuReader(MmmuOptions()).check(root, "vqa", False)


def test_from_the_files_to_the_figures(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = ["--workspace", str(tmp_path / "ws")]
    assert run(["prepare", "mmmu", "--root", str(root), *workspace]) == 0
    model = [*workspace, "--model", "tiny-idefics", "--method", "random", "--shots", "1"]
    assert run(["prompts", *model, "--task", "multiple-choice", "--rank-by", "letter", "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert "C. it's 9\nAnswer:" in shown or "D. go\nAnswer:" in shown
    for task, metric, more in (("multiple-choice", "accuracy", ["--rank-by", "letter"]), ("vqa", "mmmu-open", [])):
        assert run(["evaluate", *model, "--task", task, *more, "--json"]) == 0
        [row] = json.loads(capsys.readouterr().out)["rows"]
        assert metric in row
        assert "discipline" in row["by"] or task == "vqa"
