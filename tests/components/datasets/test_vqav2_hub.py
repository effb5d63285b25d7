"""VQAv2 from the hub's layout equals VQAv2 from the official files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from icltool.components.datasets.vqav2 import VQAv2Reader
from icltool.components.datasets.vqav2_hub import SplitOptions, VQAv2HubReader
from icltool.contracts import Example
from icltool.errors import DataError
from icltool.plugin.manager import component
from icltool.testing import QuietProgress, check_dataset
from tests.components.datasets.builders import QUESTIONS, answers_entry, vqa_image, write_vqa
from tests.components.datasets.hub_builders import TEXT, write_parquet

pytestmark = pytest.mark.usefixtures("own_cache")
FEATURES = {
    "question_type": TEXT,
    "multiple_choice_answer": TEXT,
    "answers": [{"answer": TEXT, "answer_confidence": TEXT, "answer_id": datasets.Value("int64")}],
    "image_id": datasets.Value("int64"),
    "answer_type": TEXT,
    "question_id": datasets.Value("int64"),
    "question": TEXT,
    "image": datasets.Image(),
}
TIED = (139, "tie?  two\nlines", ["b", " a", "b", " a", "", "c"])
ASKED = {
    "train": {**QUESTIONS["train"], 139001: TIED, 139002: (139, "nobody knows", ["", " "])},
    "val": QUESTIONS["val"],
}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write_vqa(tmp_path / "official", ASKED)


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    splits = {
        {"train": "train", "val": "validation"}[split]: [
            {
                **answers_entry(q, i, answers, answers[0]),
                "question": text,
                "image": {"bytes": vqa_image(official, split, i).read_bytes(), "path": f"{i}.jpg"},
            }
            for q, (i, text, answers) in entries.items()
        ]
        for split, entries in ASKED.items()
    }
    return write_parquet(tmp_path / "copy", splits, FEATURES, shards=1)


def test_examples_equal_those_of_the_official_files(official: Path, copy: Path, tmp_path: Path) -> None:
    def read(reader: VQAv2Reader | VQAv2HubReader, root: Path) -> dict[str, list[Example]]:
        return {s.name: list(s.examples) for s in reader.read(root, "vqa", tmp_path, QuietProgress())}

    ours, theirs = read(VQAv2HubReader(SplitOptions()), copy), read(VQAv2Reader(), official)
    assert len(theirs["train"]) == 4
    for name, examples in theirs.items():
        assert [replace(e, image="") for e in ours[name]] == [replace(e, image="") for e in examples]
        for one, other in zip(ours[name], examples, strict=True):
            assert Path(one.image).read_bytes() == Path(other.image).read_bytes()
    assert str(tmp_path / "datasets" / "vqav2-hub" / "source") in ours["train"][0].image


def test_conforms(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    check_dataset(lambda: component("datasets", "vqav2-hub"), copy, "vqa", tmp_path / "workspace")


def test_another_layout_is_refused(tmp_path: Path) -> None:
    rows = [{"question": "q", "image_id": 3}]
    features = {"question": TEXT, "image_id": datasets.Value("int64")}
    root = write_parquet(tmp_path / "x", {"train": rows, "validation": rows}, features)
    with pytest.raises(DataError, match="has no column 'image'"):
        VQAv2HubReader(SplitOptions()).check(root, "vqa", False)


def test_counts_other_than_the_official_ones_are_remarked_on(copy: Path) -> None:
    remarks = VQAv2HubReader(SplitOptions()).check(copy, "vqa", False).remarks
    assert "copy: 4 answered questions in train; the official split has 443,757" in remarks
    assert "copy train: 1 question without an answer left out (row 4)" in remarks
