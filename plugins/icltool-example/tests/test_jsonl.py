from __future__ import annotations

import json
from pathlib import Path

import pytest
from icltool_example.jsonl import JsonlReader

from icltool import DataError
from icltool.testing import QuietProgress, check_dataset, make_examples


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for split, count in (("train", 8), ("validation", 4)):
        examples = make_examples(folder / "images" / split, count, size=8)
        lines = [
            {"image": f"images/{split}/{Path(e.image).name}", "caption": list(e.references), "group": e.group}
            for e in examples
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    return folder


def test_it_conforms(root: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    check_dataset(JsonlReader, root, "caption", workspace)


def test_one_image_has_one_id_in_both_splits(root: Path) -> None:
    (root / "validation.jsonl").write_text('{"image": "./images/train/caption-0000.png", "caption": "again"}')
    train, validation = (list(s.examples) for s in JsonlReader().read(root, "caption", root, QuietProgress()))
    assert validation[0].image_id == train[0].image_id
    assert validation[0].references == ("again",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 1: not JSON"),
        ("[1, 2]", "line 1: not an object"),
        ('{"caption": "a"}', "'image' is missing"),
        ('{"image": "a.png", "caption": []}', "'caption' must be"),
        ('{"image": "a.png", "caption": "a", "group": 3}', "'group' must be"),
        ('{"image": "a.png", "caption": "a"}', "a.png .*does not exist"),
        ("", "holds no example"),
    ],
)
def test_bad_lines_are_one_clear_error(root: Path, line: str, message: str) -> None:
    (root / "train.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        JsonlReader().check(root, "caption", verify=False)


def test_a_cut_image_is_found(root: Path) -> None:
    image = root / "images" / "train" / "caption-0003.png"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(DataError, match=r"caption-0003\.png does not open"):
        JsonlReader().check(root, "caption", verify=True)


def test_a_missing_file_or_folder_is_named(root: Path) -> None:
    (root / "validation.jsonl").unlink()
    with pytest.raises(DataError, match=r"validation\.jsonl does not exist"):
        JsonlReader().check(root, "caption", verify=False)
    with pytest.raises(DataError, match="needs a folder"):
        JsonlReader().check(None, "caption", verify=False)
