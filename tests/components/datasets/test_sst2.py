"""SST-2 from GLUE's files and from a copy of the hub's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from icltool.components.datasets.sst2 import Sst2Options, Sst2Reader
from icltool.contracts import Example
from icltool.errors import DataError
from icltool.plugin.manager import component
from icltool.testing import QuietProgress, check_dataset
from tests.components.datasets.hub_builders import TEXT, write_parquet

pytestmark = pytest.mark.usefixtures("own_cache")
SENTENCES: dict[str, list[tuple[str, int]]] = {
    "train": [
        ('hide " new secretions from the parental units ', 0),
        ("of saucy ", 1),
        ("Of saucy !", 1),
        ("contains no wit , only labored gags ", 0),
    ],
    "dev": [("it 's a charming journey . ", 1), ("contains no wit , only labored gags . ", 0)],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "glue" / "SST-2").mkdir(parents=True)
    for split, rows in SENTENCES.items():
        text = "sentence\tlabel\n" + "".join(f"{sentence}\t{label}\n" for sentence, label in rows)
        (tmp_path / "glue" / "SST-2" / f"{split}.tsv").write_text(text)
    return tmp_path / "glue"


def read(root: Path) -> dict[str, list[Example]]:
    return {
        s.name: list(s.examples)
        for s in Sst2Reader(Sst2Options()).read(root, "classification", Path("x"), QuietProgress())
    }


def refused(root: Path | None, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        Sst2Reader(Sst2Options(**options)).check(root, "classification", False)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_conforms(root: Path, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    check_dataset(lambda: component("datasets", "sst2"), root, "classification", tmp_path / "workspace")


def test_examples(root: Path) -> None:
    splits = read(root)
    assert list(splits) == ["train", "validation"]
    train, validation = splits["train"], splits["validation"]
    assert train[0] == Example(
        id=0,
        image="",
        image_id=0,
        text='hide " new secretions from the parental units',
        label="negative",
        references=("negative",),
        choices=("negative", "positive"),
    )
    assert [e.label for e in train] == ["negative", "positive", "positive", "negative"]
    assert [e.id for e in validation] == [e.image_id for e in validation] == [4, 5]
    assert train[1].group == train[2].group != ""
    assert train[3].group == validation[1].group != ""
    assert validation[0].group == ""
    assert read(root / "SST-2") == splits


def test_a_copy_gives_the_same(root: Path, tmp_path: Path) -> None:
    features = {
        "idx": datasets.Value("int32"),
        "sentence": TEXT,
        "label": datasets.ClassLabel(names=["negative", "positive"]),
    }
    rows = {
        split: [{"idx": i, "sentence": s, "label": label} for i, (s, label) in enumerate(SENTENCES[part])]
        for split, part in (("train", "train"), ("validation", "dev"))
    }
    rows["test"] = [{"idx": 0, "sentence": "uneasy mishmash", "label": -1}]
    copy = write_parquet(tmp_path / "copy", rows, features)
    assert read(copy) == read(root)
    assert {file.name for file in Sst2Reader(Sst2Options()).check(copy, "classification", True).files} == {
        "train-00000-of-00001.parquet",
        "validation-00000-of-00001.parquet",
    }


def test_what_is_wrong(root: Path, tmp_path: Path) -> None:
    assert refused(None).message == "data set 'sst2' needs a folder"
    assert "stanfordnlp/sst2" in str(refused(None).hint)
    assert refused(tmp_path / "nowhere").message.endswith("nowhere does not exist")
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").message.startswith(f"no SST-2 in {tmp_path / 'empty'}: ")
    dev = root / "SST-2" / "dev.tsv"
    for content, message in (
        ("sentence\tlabel\na\t2\n", "line 2: label '2' is neither 0 nor 1"),
        ("sentence\tlabel\na\t1\n \t0\n", "line 3: the sentence is empty"),
        ("sentence\tlabel\na\tb\t1\n", "line 2: 3 fields, not sentence and label"),
        ("index\tsentence\n0\ta\n", "line 1 does not name the columns sentence and label"),
        ("sentence\tlabel\n", "has no sentences"),
    ):
        dev.write_text(content)
        assert refused(root).message == f"{dev} {message}"
    dev.unlink()
    assert refused(root).message == f"{root / 'SST-2'} lacks dev.tsv"


def test_unofficial_counts_are_remarked_on(root: Path) -> None:
    report = Sst2Reader(Sst2Options()).check(root, "classification", False)
    assert report.remarks == (
        f"{root / 'SST-2' / 'train.tsv'} has 4 sentences; the official split has 67,349",
        f"{root / 'SST-2' / 'dev.tsv'} has 2 sentences; the official split has 872",
    )
