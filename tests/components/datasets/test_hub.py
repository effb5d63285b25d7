"""Data sets in the formats of Hugging Face `datasets`, from local files that hold their images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from icltool.components.datasets.held_images import HeldImages
from icltool.components.datasets.hub import HubOptions, HubReader
from icltool.contracts import Example
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from icltool.testing import QuietProgress, check_dataset
from tests.components.datasets.hub_builders import IMAGE, TEXT, as_dataset, image, write_parquet

FEATURES = {**IMAGE, "caption": datasets.List(TEXT)}
ROWS = {
    "train": [
        {"image": image(1, "JPEG"), "caption": ["a cat", "the cat"]},
        {"image": image(2), "caption": ["two dogs"]},
        {"image": image(1, "JPEG"), "caption": ["one cat"]},
        {"image": image(3), "caption": ["a bed"]},
    ],
    "validation": [{"image": image(2), "caption": ["dogs"]}, {"image": image(4), "caption": ["a boat"]}],
}


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "data", ROWS, FEATURES, shards=2)


def read(root: Path | None, workspace: Path, task: str = "caption", **options: Any) -> dict[str, list[Example]]:
    splits = HubReader(HubOptions(**options)).read(root, task, workspace, QuietProgress())
    return {split.name: list(split.examples) for split in splits}


def refused(root: Path | None, task: str = "caption", verify: bool = False, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        HubReader(HubOptions(**options)).check(root, task, verify)
    assert "\n" not in caught.value.message
    return caught.value


def test_conforms(root: Path, tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    check_dataset(lambda: component("datasets", "hub"), root, "caption", tmp_path / "workspace")


def test_images_are_written_once_as_they_are_encoded(root: Path, tmp_path: Path) -> None:
    splits = read(root, tmp_path)
    train, validation = splits["train"], splits["validation"]
    assert [(e.id, e.references) for e in train] == [
        (0, ("a cat", "the cat", "one cat")),
        (1, ("two dogs",)),
        (3, ("a bed",)),
    ]
    assert [(e.id, e.label) for e in validation] == [(4, "dogs"), (5, "a boat")]
    assert validation[0].image == train[1].image
    assert validation[0].image_id == train[1].image_id
    assert len({e.image_id for examples in splits.values() for e in examples}) == 4
    folder = tmp_path / "datasets" / "hub" / "source" / "images"
    assert sorted(p for p in folder.rglob("*") if p.is_file()) == sorted({Path(e.image) for e in train + validation})
    assert Path(train[0].image).suffix == ".jpg"
    assert Path(train[0].image).read_bytes() == ROWS["train"][0]["image"]["bytes"]
    assert Path(train[1].image).read_bytes() == ROWS["train"][1]["image"]["bytes"]


def test_a_second_run_writes_what_is_missing_or_cut(root: Path, tmp_path: Path) -> None:
    first, second, third = (Path(e.image) for e in read(root, tmp_path)["train"])
    modified, content = third.stat().st_mtime_ns, first.read_bytes()
    first.write_bytes(b"")  # what a power failure may leave
    second.unlink()
    read(root, tmp_path)
    assert first.read_bytes() == content
    assert second.is_file()
    assert third.stat().st_mtime_ns == modified
    assert not list(tmp_path.rglob("*.tmp"))


def write_image_folder(folder: Path) -> None:
    """Images as files; equal ones are still one image."""
    for name, rows in ROWS.items():
        (folder / name).mkdir(parents=True)
        lines = []
        for i, row in enumerate(rows):
            (folder / name / f"{i}.img.png").write_bytes(row["image"]["bytes"])
            lines.append({"file_name": f"{i}.img.png", "caption": row["caption"]})
        datasets.Dataset.from_list(lines).to_json(folder / name / "metadata.jsonl")


@pytest.mark.parametrize("form", ["parquet-default", "saved", "arrow", "json", "imagefolder"])
def test_other_forms_give_the_same_examples(root: Path, tmp_path: Path, form: str) -> None:
    expected = read(root, tmp_path / "first")
    folder = tmp_path / form
    splits = datasets.DatasetDict({name: as_dataset(rows, FEATURES) for name, rows in ROWS.items()})
    if form == "saved":
        splits.save_to_disk(folder)
    elif form == "imagefolder":
        write_image_folder(folder)
    for name, of_split in splits.items():
        if form == "parquet-default":
            (folder / "default" / name).mkdir(parents=True)
            of_split.to_parquet(folder / "default" / name / "0000.parquet")
        elif form == "arrow":
            of_split.save_to_disk(tmp_path / "made" / name)
            folder.mkdir(exist_ok=True)
            (tmp_path / "made" / name / "data-00000-of-00001.arrow").rename(folder / f"{name}.arrow")
        elif form == "json":
            folder.mkdir(exist_ok=True)
            places = [next(e.image for e in expected[name] if c["caption"][0] in e.references) for c in ROWS[name]]
            of_split.remove_columns("image").add_column("image", places).to_json(folder / f"{name}.jsonl")
    examples = read(folder, tmp_path / "second")

    def plain(splits: dict[str, list[Example]]) -> dict[str, list[Example]]:
        return {name: [replace(e, image="") for e in of_split] for name, of_split in splits.items()}

    assert plain(examples) == plain(expected)
    for name, of_split in examples.items():
        for one, other in zip(of_split, expected[name], strict=True):
            assert Path(one.image).read_bytes() == Path(other.image).read_bytes()
    assert HubReader(HubOptions()).check(folder, "caption", True).files


def test_splits_by_option(root: Path, tmp_path: Path) -> None:
    error = refused(root, train="training")
    assert error.message == f"data set {root} has no split 'training'; it has train, validation"
    assert "--option validation=0.1" in str(refused(root, validation="val").hint)
    with pytest.raises(ConfigError, match="both 'train'"):
        HubReader(HubOptions(validation="train")).check(root, "caption", False)
    splits = read(root, tmp_path, train="validation", validation="train")
    assert [e.label for e in splits["train"]] == ["dogs", "a boat"]
    held = read(root, tmp_path, validation=0.3)
    assert (len(held["train"]), len(held["validation"])) == (2, 1)
    (remark,) = HubReader(HubOptions(validation=0.3)).check(root, "caption", False).remarks
    assert remark == "data: 1 example held out as queries"


def test_columns_by_option(tmp_path: Path) -> None:
    rows = [{"img": image(i), "q": f"q{i}", "reply": f"r{i}", "key": f"k{i}", "other": image(9)} for i in range(3)]
    features = {"img": datasets.Image(), "q": TEXT, "reply": TEXT, "key": TEXT, "other": datasets.Image()}
    root = write_parquet(tmp_path / "vqa", {"train": rows, "validation": rows[:1]}, features)
    examples = read(root, tmp_path, "vqa", question="q", answer="reply", image="img", id="key")["train"]
    assert [(e.question, e.label, e.references) for e in examples] == [(f"q{i}", f"r{i}", (f"r{i}",)) for i in range(3)]
    error = refused(root, "vqa", question="q")
    assert "has no column for answers or answer" in error.message
    assert "'reply'" in str(error.hint)
    assert refused(root, "vqa", image="q", question="q", answer="reply").message.startswith("vqa train row 0: image ")
    assert refused(root, "vqa", question="other", answer="reply").message == (
        "vqa train row 0: column 'other' holds a record, not text"
    )


def test_named_classes(tmp_path: Path) -> None:
    features = {"sentence": TEXT, "label": datasets.ClassLabel(names=["neg", "pos"])}
    rows = [{"sentence": f"text {i}", "label": i % 2} for i in range(4)] + [{"sentence": "none", "label": -1}]
    root = write_parquet(tmp_path / "c", {"train": rows, "validation": rows[:2]}, features)
    splits = read(root, tmp_path, "classification")
    assert [e.label for e in splits["train"]] == ["neg", "pos", "neg", "pos"]
    assert {e.choices for e in splits["train"]} == {("neg", "pos")}
    assert not {e.id for e in splits["train"]} & {e.id for e in splits["validation"]}
    assert splits["validation"][0].group == splits["train"][0].group != splits["train"][2].group == ""
    remarks = HubReader(HubOptions()).check(root, "classification", False).remarks
    assert "c train: 1 row without a label left out (row 4)" in remarks


def test_check_writes_nothing_and_opens_images(root: Path, tmp_path: Path) -> None:
    report = HubReader(HubOptions()).check(root, "caption", False)
    assert len(report.files) == 4
    rows = [{"image": image(1), "caption": ["x"]}, {"image": {"bytes": b"no image", "path": None}, "caption": ["y"]}]
    broken = write_parquet(tmp_path / "broken", {"train": rows, "validation": rows}, FEATURES)
    assert refused(broken).message.startswith("broken train row 1: its image cannot be read: ")
    half = image(5)
    half["bytes"] = half["bytes"][: len(half["bytes"]) // 2]
    rows = [{"image": image(i), "caption": ["x"]} for i in range(50)] + [{"image": half, "caption": ["y"]}]
    late = write_parquet(tmp_path / "late", {"train": rows, "validation": rows[:1]}, FEATURES)
    HubReader(HubOptions()).check(late, "caption", False)  # opens the first fifty
    with pytest.raises(DataError, match="late train row 50: its image cannot be read"):
        HubReader(HubOptions()).verify(late, "caption", QuietProgress())
    rows = [{"image": None, "caption": ["x"]}]
    missing = write_parquet(tmp_path / "missing", {"train": rows, "validation": rows}, FEATURES)
    assert refused(missing).message == "missing train row 0 holds no image"


def test_damaged_files_and_no_data_set(root: Path, tmp_path: Path) -> None:
    assert refused(None).message == "data set 'hub' needs a path"
    with pytest.raises(ConfigError, match="--root and path="):
        HubReader(HubOptions(path="a/b")).check(root, "caption", False)
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").message.startswith(f"data set {tmp_path / 'empty'} cannot be opened: ")
    path = root / "data" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    assert refused(root).message.startswith(f"{path} cannot be read: ")
    for wrong in ("./nowhere", "/no/such/folder", "a/b/c"):  # never looked for on the hub
        assert refused(None, path=wrong).message == f"data set {wrong} is neither a folder nor a name on the hub"
    assert refused(None, path="nobody/nothing").message.startswith("data set nobody/nothing cannot be opened: ")


def test_addresses_are_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names its image by the URL"):
        HeldImages(tmp_path, None).place("https://example.org/x.png", "train row 0")


def test_several_images_in_a_list_and_in_columns(tmp_path: Path) -> None:
    text = {"question": TEXT, "answer": TEXT}
    listed = [{"images": [image(1), image(2)], "question": "how?", "answer": "x"}]
    listed.append({"images": [image(3)], "question": "why?", "answer": "y"})
    features = {"images": datasets.Sequence(datasets.Image()), **text}
    folder = write_parquet(tmp_path / "listed", {"train": listed, "validation": listed[:1]}, features)
    saved = tmp_path / "saved"
    datasets.DatasetDict({s: as_dataset(listed, features) for s in ("train", "validation")}).save_to_disk(str(saved))
    columns = [
        {"image_1": image(1), "image_2": image(2), **listed[0]},
        {"image_1": image(3), "image_2": None, **listed[1]},
    ]
    numbered = write_parquet(
        tmp_path / "numbered",
        {"train": columns, "val": columns},
        {"image_1": datasets.Image(), "image_2": datasets.Image(), **text},
    )
    (first, second), *others = (read(root, tmp_path / "ws", "vqa")["train"] for root in (folder, saved, numbered))
    assert (len(first.images), len(second.images)) == (2, 1)
    assert len({*first.image_ids, *second.image_ids}) == 3
    assert [(e.image_ids, e.question) for e in (first, second)] == [
        (e.image_ids, e.question) for o in others for e in o
    ][:2]
    holed = [{"image_1": None, "image_2": image(2), "question": "how?", "answer": "x"}, *columns[1:]]
    features = {"image_1": datasets.Image(), "image_2": datasets.Image(), **text}
    with_hole = write_parquet(tmp_path / "hole", {"train": holed, "validation": columns}, features)
    assert refused(with_hole, "vqa").message == "hole train row 0: column 'image_1' is empty, but a later one is not"


def test_the_conventions_for_queries_are_those_of_folder(tmp_path: Path) -> None:
    rows = [{"image": image(shade), "caption": str(shade)} for shade in range(6)]
    features = {**IMAGE, "caption": TEXT}
    for names, held in ((("train", "dev"), 2), (("train", "test"), 2), (("train",), 1)):
        splits = {name: rows if name == "train" else rows[:2] for name in names}
        folder = write_parquet(tmp_path / "-".join(names), splits, features)
        assert len(read(folder, tmp_path / "ws")["validation"]) == held
        remarks = HubReader(HubOptions()).check(folder, "caption", False).remarks
        said = {"dev": "", "test": "the test split holds the queries", "train": "1 example held out as queries"}[
            names[-1]
        ]
        assert said in " ".join(remarks)
    assert "has no split 'validation'" in refused(folder, validation="validation").message
