"""Karpathy's split of COCO, from his file and from LAVIS' files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from icltool.components.datasets.coco_karpathy import CocoKarpathyReader, KarpathyOptions
from icltool.contracts import DatasetReader, Example
from icltool.errors import ConfigError, DataError
from icltool.execution.progress import SilentProgress
from icltool.plugin.manager import component
from tests.components.datasets.builders import (
    KARPATHY,
    captions_content,
    edit,
    karpathy_content,
    karpathy_file,
    lavis_content,
    pack,
    truncate,
    write_image,
    write_json,
    write_karpathy,
)


@pytest.fixture(params=["whole", "lavis"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_karpathy(tmp_path / "data", lavis=request.param == "lavis")


def read(root: Path | None, **options: Any) -> dict[str, list[Example]]:
    splits = {}
    for split in CocoKarpathyReader(KarpathyOptions(**options)).read(root, "caption", Path("unused"), SilentProgress()):
        splits[split.name] = list(split.examples)
        assert split.count == len(splits[split.name])
    return splits


def refused(root: Path | None, verify: bool = False, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        CocoKarpathyReader(KarpathyOptions(**options)).check(root, "caption", verify)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_satisfies_the_protocol() -> None:
    assert isinstance(CocoKarpathyReader(KarpathyOptions()), DatasetReader)


def test_examples_by_image_id_with_captions_in_the_order_of_the_file(root: Path) -> None:
    splits = read(root)
    assert list(splits) == ["train", "validation", "development"]
    assert [(e.id, e.references) for e in splits["train"]] == [
        (9, ("A cat.", "one cat")),
        (139, ("two dogs",)),
        (632, ("a bed", "😀 قطة", "e\u0301")),
    ]
    assert [(e.id, e.label, e.references) for e in splits["validation"]] == [
        (724, "a stop sign", ("a stop sign",)),
        (776, "bears", ("bears", "three bears")),
    ]
    assert [(e.id, e.references) for e in splits["development"]] == [(785, ("a skier",))]
    images = root / "mscoco" / "mscoco2014"
    assert [e.image for e in splits["train"]] == [
        str(images / karpathy_file(split, i)) for split, i in (("train", 9), ("train", 139), ("restval", 632))
    ]
    assert all(e.text == e.label and e.image_id == e.id for examples in splits.values() for e in examples)


@pytest.mark.parametrize(
    "options", [{}, {"restval": False}, {"split": "validation"}, {"restval": False, "split": "val"}]
)
def test_both_forms_give_equal_examples(tmp_path: Path, options: dict[str, Any]) -> None:
    root = write_karpathy(tmp_path, lavis=False)
    whole = read(root, **options)
    (root / "coco-karpathy" / "dataset_coco.json").unlink()
    write_karpathy(root, lavis=True)
    assert read(root, **options) == whole


def test_options_choose_the_training_set_and_the_queries(root: Path) -> None:
    splits = read(root, restval=False, split="validation")
    assert [e.id for e in splits["train"]] == [9, 139]
    assert [e.id for e in splits["validation"]] == [785]
    assert "development" not in splits, "by which weights are chosen: never the queries, never the test split"


def test_the_report_names_the_training_set(root: Path) -> None:
    remarks = CocoKarpathyReader(KarpathyOptions()).check(root, "caption", verify=True).remarks
    assert remarks == (
        "train: 3 images, with restval; the official one has 113,287",
        "validation: 1 empty caption left out",
        "validation: 2 images, Karpathy's test split; the official one has 5,000",
        "development: 1 image, Karpathy's val split; the official one has 5,000",
    )
    remarks = (
        CocoKarpathyReader(KarpathyOptions(restval=False, split="val")).check(root, "caption", verify=True).remarks
    )
    assert remarks == (
        "train: 2 images, without restval; the official one has 82,783",
        "validation: 1 image, Karpathy's val split; the official one has 5,000",
    )


def test_wrong_options() -> None:
    for options in ({"restval": "perhaps"}, {"split": "train"}):
        with pytest.raises(ConfigError, match="coco-karpathy"):
            component("datasets", "coco-karpathy", **options)


def test_lavis_files_of_other_splits_are_not_needed(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path, lavis=True)
    (root / "coco-karpathy" / "coco_karpathy_val.json").unlink()
    assert {name: len(examples) for name, examples in read(root).items()} == {"train": 3, "validation": 2}
    remark = f"no split 'development': {root / 'coco-karpathy'} has no coco_karpathy_val.json"
    assert CocoKarpathyReader(KarpathyOptions()).check(root, "caption", False).remarks[-1] == remark
    assert refused(root, split="validation").message == f"{root / 'coco-karpathy'} lacks coco_karpathy_val.json"


def test_a_file_without_the_val_split(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path)
    path = root / "coco-karpathy" / "dataset_coco.json"
    write_json(path, karpathy_content({**KARPATHY, "val": {}}))
    assert list(read(root)) == ["train", "validation"]
    remarks = CocoKarpathyReader(KarpathyOptions()).check(root, "caption", False).remarks
    assert remarks[-1] == f"no split 'development': {path} has no images of the split val"


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_karpathy(tmp_path / "data")
    expected = read(root)
    assert read(root / "coco-karpathy") == expected
    for place in ("mscoco/mscoco2014/annotations", "mscoco/annotations", "."):
        moved = root / place / "dataset_coco.json"
        moved.parent.mkdir(exist_ok=True)
        next(root.rglob("dataset_coco.json")).rename(moved)
        assert read(root) == expected
    monkeypatch.setenv("COCO_PATH", str(root))
    assert read(None) == expected


def test_nothing_there(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.message.startswith(f"no Karpathy split in {tmp_path}: ")
    for name in ("dataset_coco.json", "caption_datasets.zip", "coco_karpathy_train.json"):
        assert name in str(error.hint)


def test_no_images(root: Path) -> None:
    shutil.rmtree(root / "mscoco")
    assert refused(root).message.startswith("no COCO 2014 images for Karpathy's split: ")


def test_the_archive_may_hold_other_data_sets(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path)
    folder = root / "coco-karpathy"
    expected = read(root)
    write_json(folder / "dataset_flickr8k.json", {"images": [], "dataset": "flickr8k"})
    for path in sorted(folder.iterdir()):
        pack(folder / "caption_datasets.zip", path)
    assert read(root) == expected
    assert folder / "caption_datasets.zip" in CocoKarpathyReader(KarpathyOptions()).check(root, "caption", False).files


def test_groups_of_near_duplicates(root: Path) -> None:
    write_json(
        root / "coco-karpathy" / "near_duplicates.json",
        {"train": {"632": "beds"}, "val": {"724": "signs"}, "development": {"785": "snow"}},
    )
    splits = read(root)
    assert [e.group for e in splits["train"]] == ["", "", "beds"]
    assert [e.group for e in splits["validation"]] == ["signs", ""]
    assert [e.group for e in splits["development"]] == ["snow"]


def test_image_missing_and_image_broken(root: Path) -> None:
    image = root / "mscoco" / "mscoco2014" / karpathy_file("restval", 632)
    truncate(image)
    assert refused(root).message.startswith(f"image {image} cannot be read: ")
    image.unlink()
    assert f"names 1 image missing from {image.parent}: {image.name}" in refused(root).message
    CocoKarpathyReader(KarpathyOptions(restval=False)).check(root, "caption", True)


def whole_file(root: Path) -> Path:
    return write_karpathy(root) / "coco-karpathy" / "dataset_coco.json"


def lavis_train(root: Path) -> Path:
    return write_karpathy(root, lavis=True) / "coco-karpathy" / "coco_karpathy_train.json"


@pytest.mark.parametrize("make", [whole_file, lavis_train])
def test_cut_file(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path)
    truncate(path)
    assert refused(tmp_path).message.startswith(f"{path} is cut off at line 1, column ")


@pytest.mark.parametrize("make", [whole_file, lavis_train])
@pytest.mark.parametrize(
    "content", [7, [7], {"images": 3}, {}, [{"image": "x.jpg", "caption": None}], [{"image": "x"}]]
)
def test_file_of_another_form(tmp_path: Path, make: Any, content: object) -> None:
    path = make(tmp_path)
    write_json(path, content)
    assert str(path) in refused(tmp_path).message


def test_file_of_another_kind(tmp_path: Path) -> None:
    path = whole_file(tmp_path)
    write_json(path, captions_content({9: ["a cat"]}))
    assert refused(tmp_path).message == f"{path} holds captions, not captions in Karpathy's format"
    write_json(path, {**karpathy_content(), "dataset": "flickr30k"})
    assert refused(tmp_path).message == f"{path} belongs to another data set: 'flickr30k', not 'coco'"


@pytest.mark.parametrize(
    "change", [{"cocoid": "9"}, {"split": None}, {"sentences": [{"raw": 3}]}, {"sentences": 3}, {"filename": 1}]
)
def test_entry_at_fault_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = whole_file(tmp_path)
    edit(path, lambda content: content["images"][2].update(change))
    assert refused(tmp_path).message == f"{path}: entry 2 of 'images' is not an image with captions"


def test_entry_of_lavis_at_fault_is_named(tmp_path: Path) -> None:
    path = lavis_train(tmp_path)
    edit(path, lambda content: content[1].update(image="no number"))
    assert refused(tmp_path).message == f"{path}: entry 1 is not an image with its caption"


def test_an_image_in_two_splits(tmp_path: Path) -> None:
    path = whole_file(tmp_path)
    again = karpathy_content({"test": {9: ["x"]}})["images"]
    edit(path, lambda content: content["images"].extend(again))
    assert refused(tmp_path).message == f"{path}: image 9 is listed twice, in train and validation"


def test_queries_of_lavis_among_the_training_images(tmp_path: Path) -> None:
    path = lavis_train(tmp_path)
    test = path.with_name("coco_karpathy_test.json")
    leaked = {**KARPATHY, "restval": {776: ["a leak"]}}
    write_json(path, lavis_content("train", leaked))
    assert refused(tmp_path).message == f"{path} and {test}: image 776 is listed twice, in train and validation"


def test_an_image_elsewhere(tmp_path: Path) -> None:
    path = whole_file(tmp_path)
    edit(path, lambda content: content["images"][0].update(filepath="../train2014", split="train"))
    assert "puts image ../train2014/" in refused(tmp_path).message


def test_a_split_without_captions(tmp_path: Path) -> None:
    path = whole_file(tmp_path)
    write_json(path, karpathy_content({**KARPATHY, "test": {776: [" "]}}))
    assert refused(tmp_path).message == f"{path} has no captions for validation"


def test_an_image_without_captions_is_left_out(tmp_path: Path) -> None:
    path = whole_file(tmp_path)
    write_json(path, karpathy_content({**KARPATHY, "train": {9: ["a cat"], 139: []}}))
    assert [e.id for e in read(tmp_path)["train"]] == [9, 632]
    assert (
        "train: 1 image without captions left out"
        in CocoKarpathyReader(KarpathyOptions()).check(tmp_path, "caption", False).remarks
    )


def test_verify_opens_all_and_the_check_a_sample(tmp_path: Path) -> None:
    ids = range(1, 91)
    captions = {**KARPATHY, "train": {i: ["x"] for i in ids}}
    root = write_karpathy(tmp_path)
    write_json(root / "coco-karpathy" / "dataset_coco.json", karpathy_content(captions))
    for image_id in ids:
        path = root / "mscoco" / "mscoco2014" / karpathy_file("train", image_id)
        write_image(path)
        path.write_bytes(b"broken")
    assert refused(root).message.startswith("50 images in ")
    assert refused(root, verify=True).message.startswith("90 images in ")


def test_lavis_own_folders_are_read(tmp_path: Path) -> None:
    """coco/annotations and coco/images, from the folder above them and from coco itself."""
    root = write_karpathy(tmp_path / "plain", lavis=True)
    expected = read(root)
    laid = tmp_path / "lavis" / "coco"
    (laid / "images").mkdir(parents=True)
    shutil.move(root / "coco-karpathy", laid / "annotations")
    for part in ("train2014", "val2014"):
        shutil.move(next(root.rglob(part)), laid / "images" / part)
    for start in (laid.parent, laid):
        splits = read(start)
        assert [[e.id for e in split] for split in splits.values()] == [
            [e.id for e in split] for split in expected.values()
        ]
        assert all(Path(e.image).is_file() for split in splits.values() for e in split)
    (laid / "annotations" / "coco_karpathy_train.json").unlink()
    for name in ("val", "test"):
        (laid / "annotations" / f"coco_karpathy_{name}.json").rename(
            laid / "annotations" / f"coco_karpathy_{name}_gt.json"
        )
    error = refused(laid.parent)
    assert "coco_karpathy_test_gt.json holds only the references of LAVIS' evaluation, without images" in error.message
    assert "coco_karpathy_train.json" in (error.hint or "")
