"""Sherlock from its official files: regions, references, distractors, and what is wrong with a file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icltool.components.datasets.distractors import Pool
from icltool.components.datasets.sherlock import SherlockOptions, SherlockReader
from icltool.contracts import Example, Region, group_code, image_reference
from icltool.contracts.arrays import plain_text
from icltool.errors import ConfigError, DataError
from icltool.execution.progress import SilentProgress
from icltool.plugin.manager import component
from icltool.testing.datasets import check_dataset
from tests.components.datasets.builders import edit, pack, truncate, write_image, write_json
from tests.components.datasets.caption_builders import (
    SEEN,
    TRAIN,
    VALIDATION,
    image_path,
    instance_id,
    record,
    write_sherlock,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sherlock(tmp_path / "data")


def read(root: Path | None, task: str = "inference", **options: Any) -> dict[str, list[Example]]:
    splits = {}
    for split in SherlockReader(SherlockOptions(**options)).read(root, task, Path("unused"), SilentProgress()):
        splits[split.name] = list(split.examples)
        assert split.count == len(splits[split.name])
    return splits


def refused(root: Path | None, task: str = "inference", verify: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        SherlockReader(SherlockOptions()).check(root, task, verify)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def remarks(root: Path, task: str = "inference") -> tuple[str, ...]:
    return SherlockReader(SherlockOptions()).check(root, task, False).remarks


@pytest.mark.parametrize("task", ["inference", "inference-choice"])
def test_satisfies_the_suite(root: Path, tmp_path: Path, task: str) -> None:
    (tmp_path / "ws").mkdir()
    check_dataset(SherlockReader, root, task, tmp_path / "ws")


def test_an_inference_is_an_example(root: Path) -> None:
    train, validation = read(root).values()
    assert [(e.question, e.text, e.label) for e in train] == [
        ("20 mph sign", "20 mph sign", "this is a residential area"),
        ("a cake", "a cake", "it is a birthday"),
        ("a sign", "a sign", "children play here"),
    ]
    assert [e.answer_type for e in (*train, *validation)] == ["vcr", "vg", "vcr", "vg", "vcr", "vg", "vg"]
    first, cake, last = train
    assert first.image == f"{root}/vcr1images/lsmdc_1/a@1.jpg#xywh=4,6,20,10&show=highlight"
    assert image_reference(cake.image).regions == (Region(0, 0, 10, 10), Region(30, 30, 10, 10))
    assert image_reference(cake.image).file == str(root / "vg" / "images" / "VG_100K" / "7.jpg")
    assert first.image_id == last.image_id != cake.image_id
    assert first.choices == ()


def test_references_are_all_inferences_of_the_region_the_own_one_first(root: Path) -> None:
    train, validation = read(root).values()
    assert train[0].references == ("this is a residential area", "children play here")
    assert train[2].references == ("children play here", "this is a residential area")
    assert train[1].references == ("it is a birthday",)
    assert validation[3].references == ("the meal is over", "someone ate")

    def moved(content: list[Any]) -> None:
        content[2]["inputs"]["bboxes"][0]["left"] = 5

    edit(root / "sherlock_dataset" / TRAIN, moved)
    assert read(root)["train"][0].references == ("this is a residential area",), "of other boxes"


def test_ids_come_from_instance_ids_whatever_the_order(root: Path) -> None:
    expected = {e.id: e.label for e in read(root)["train"]}
    image, _, _, inference = SEEN[TRAIN][0]
    assert expected[group_code(instance_id(image, inference))] == inference
    edit(root / "sherlock_dataset" / TRAIN, lambda content: content.reverse())
    assert {e.id: e.label for e in read(root)["train"]} == expected


@pytest.mark.parametrize("show", ["hide", "only", "crop"])
def test_regions_are_shown_as_wanted(root: Path, show: str) -> None:
    assert all(image_reference(e.image).mode == show for e in read(root, show=show)["train"])


def test_boxes_are_clipped_and_records_without_one_left_out(root: Path) -> None:
    def change(content: list[Any]) -> None:
        content[0]["inputs"]["bboxes"] = [{"left": -4, "top": 40.4, "width": 20, "height": 90}]
        content[1]["inputs"]["bboxes"][1].update(left=48)
        content[2]["inputs"]["bboxes"] = []

    edit(root / "sherlock_dataset" / TRAIN, change)
    whole, without = read(root)["train"]
    assert image_reference(whole.image).regions == (Region(0, 40, 16, 90),)
    assert image_reference(without.image).regions == ()
    assert remarks(root) == ("train: 1 record with a region outside of its image left out",)


def test_records_without_clue_or_inference_are_left_out(root: Path) -> None:
    def change(content: list[Any]) -> None:
        content[0]["inputs"]["clue"] = " "
        content[1]["targets"] = {}

    edit(root / "sherlock_dataset" / TRAIN, change)
    assert [e.label for e in read(root)["train"]] == ["children play here"]
    assert remarks(root) == ("train: 1 record without a clue left out", "train: 1 record without an inference left out")
    edit(root / "sherlock_dataset" / TRAIN, lambda content: content.pop())
    assert "has no inferences; train: 1 record without a clue left out" in refused(root).message


def test_choices_are_the_inference_and_ones_about_other_images(root: Path) -> None:
    assert remarks(root, "inference-choice") == (
        "validation: 4 of 4 queries have fewer than 99 distractors, 2 at least",
    )
    splits = read(root, "inference-choice")
    assert all(e.choices == () for e in splits["train"])
    chosen = {e.label: e.choices for e in splits["validation"]}
    assert set(chosen["it is cold"]) == {"it is cold", "rain is likely", "someone ate", "the meal is over"}
    assert set(chosen["someone ate"]) == {"someone ate", "it is cold", "rain is likely"}
    assert all(label in choices and len(set(choices)) == len(choices) for label, choices in chosen.items())
    fewer = read(root, "inference-choice", distractors=2)["validation"]
    assert [len(e.choices) for e in fewer] == [3] * 4
    edit(root / "sherlock_dataset" / VALIDATION, lambda content: content.reverse())
    again = {e.id: e for e in read(root, "inference-choice")["validation"]}
    assert {e.id for e in splits["validation"]} == set(again)


def test_distractors_stay_within_the_part_of_the_file(root: Path) -> None:
    def parts(content: list[Any]) -> None:
        for place, entry in enumerate(content):
            entry["split_idx"] = 0 if place < 2 else 1

    edit(root / "sherlock_dataset" / VALIDATION, parts)
    assert "2 of 4 queries have no distractor" in refused(root, "inference-choice").message
    assert remarks(root) == ()
    choices = {e.label: set(e.choices) for e in read(root, "inference-choice")["validation"]}
    assert choices["it is cold"] == {"it is cold", "rain is likely"}


def test_distractors_are_drawn_by_id_and_never_read_as_a_reference() -> None:
    texts = [(f"image {n % 40}", f"Text {n % 60}.") for n in range(600)]
    pool = Pool("test", texts)
    references = ("right", "text 3", "TEXT 4!")
    drawn = {identifier: pool.choices(identifier, "image 7", references, 20) for identifier in range(30)}
    for choices in drawn.values():
        assert len(choices) == 21
        plain = [plain_text(text) for text in choices]
        assert len(set(plain)) == 21
        assert "right" in plain
        assert not {"text 3", "text 4"} & set(plain)
    assert len({choices.index("right") for choices in drawn.values()}) > 5, "the right one has no place of its own"
    assert len(set(drawn.values())) == 30
    assert Pool("test", texts).choices(7, "image 7", references, 20) == drawn[7]
    assert len(pool.choices(0, "image 7", references, 999)) == 1 + 60 - 2
    only = Pool("test", [("a", "x"), ("a", "y"), ("b", "z")])
    assert set(only.choices(1, "a", ("x",), 5)) == {"x", "z"}


def test_places_archives_and_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [e.label for e in read(root)["validation"]]
    monkeypatch.setenv("SHERLOCK_PATH", str(root))
    assert [e.label for e in read(None)["validation"]] == labels
    for name in (TRAIN, VALIDATION):
        pack(root / "sherlock_dataset" / f"{name}.zip", root / "sherlock_dataset" / name)
    pack(root / "vcr1images.zip", root / "vcr1images")
    pack(root / "vg" / "images.zip", root / "vg" / "images" / "VG_100K")
    pack(root / "vg" / "images2.zip", root / "vg" / "images" / "VG_100K_2")
    shutil.rmtree(root / "vg" / "images")
    report = SherlockReader(SherlockOptions()).check(root, "inference", True)
    assert {path.name for path in report.files} == {
        f"{TRAIN}.zip", f"{VALIDATION}.zip", "vcr1images.zip", "images.zip", "images2.zip"
    }  # fmt: skip
    examples = read(root)["validation"]
    assert [e.label for e in examples] == labels
    assert image_reference(examples[0].image).file == str(root / "vg" / "images2.zip" / "VG_100K_2" / "8.jpg")


def test_missing_files_and_images(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").message.startswith(f"no Sherlock in {tmp_path / 'empty'}")
    gone = image_path(root, "lsmdc_1/a@1.jpg")
    truncate(gone)
    assert refused(root).message.startswith(f"image {gone} cannot be read: ")
    gone.unlink()
    path = root / "sherlock_dataset" / TRAIN
    assert refused(root).message == f"{path} names 1 image missing from {root}: vcr1images/lsmdc_1/a@1.jpg"
    assert "vg/images/VG_100K" in str(refused(root).hint)
    (root / "sherlock_dataset" / VALIDATION).unlink()
    assert refused(root).message == f"{root / 'sherlock_dataset'} lacks {VALIDATION}"


@pytest.mark.parametrize("size", [24, 96])
def test_regions_of_images_of_another_size_are_scaled(root: Path, size: int) -> None:
    before = read(root)["train"]
    write_image(image_path(root, "VG_100K/7.jpg"), size=size)
    assert remarks(root) == (
        "train: 1 of 2 images checked have another size than recorded; their regions are scaled: VG_100K/7.jpg",
    )
    scale = size / 48
    changed = 0
    for old, new in zip(before, read(root)["train"], strict=True):
        was, now = image_reference(old.image), image_reference(new.image)
        if was.file.endswith("VG_100K/7.jpg"):
            changed += 1
            for region, scaled in zip(was.regions, now.regions, strict=True):
                for side in ("left", "top", "width", "height"):
                    assert abs(getattr(scaled, side) - getattr(region, side) * scale) <= 0.5
        else:
            assert was == now
    assert changed


def test_images_of_another_shape_are_refused(root: Path) -> None:
    place = image_path(root, "VG_100K/7.jpg")
    with Image.open(place) as image:
        image.crop((0, 0, 48, 30)).save(place)
    error = refused(root)
    assert "1 image with another aspect ratio than recorded" in error.message
    assert "VG_100K/7.jpg (48 x 30, recorded 48 x 48)" in error.message
    with pytest.raises(DataError, match="another aspect ratio"):
        read(root)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {}},
        {"instance_id": None},
        {"inputs": {**record("VG_100K/7.jpg", [], "a", "b")["inputs"], "bboxes": [{"left": 3}]}},
        {"inputs": {**record("VG_100K/7.jpg", [], "a", "b")["inputs"], "image": {"url": "x.jpg"}}},
        {"inputs": {**record("VG_100K/7.jpg", [], "a", "b")["inputs"], "image": {"url": "http://a/../x.jpg"}}},
        {"targets": {"inference": 3}},
    ],
)
def test_an_entry_at_fault_is_named(root: Path, change: dict[str, Any]) -> None:
    path = root / "sherlock_dataset" / TRAIN
    edit(path, lambda content: content[1].update(change))
    assert refused(root).message == f"{path}: entry 1 is not a record of Sherlock"


def test_files_of_another_form(root: Path) -> None:
    path = root / "sherlock_dataset" / TRAIN
    edit(path, lambda content: content.append(content[0]))
    twice = instance_id(SEEN[TRAIN][0][0], SEEN[TRAIN][0][3])
    assert refused(root).message == f"{path} lists instance {twice} more than once"
    truncate(path)
    assert refused(root).message.startswith(f"{path} is cut off at line 1, column ")
    write_json(path, {"images": []})
    assert refused(root).message == f"{path} is not a list of records"


def test_groups_of_near_duplicates(root: Path) -> None:
    image_id = read(root)["train"][0].image_id
    write_json(root / "sherlock_dataset" / "near_duplicates.json", {"train": {str(image_id): "street"}})
    assert [e.group for e in read(root)["train"]] == ["street", "", "street"]


def test_wrong_options() -> None:
    for options in ({"show": "blur"}, {"distractors": 0}, {"distractors": "nine"}, {"distractors": True}):
        with pytest.raises(ConfigError, match="sherlock"):
            component("datasets", "sherlock", **options)


def test_records_of_images_that_are_gone_are_left_out_when_asked_to(root: Path) -> None:
    whole = read(root)
    gone = image_reference(whole["train"][0].image).file
    Path(gone).unlink()
    assert "--option missing=skip" in str(refused(root).hint)
    splits = read(root, missing="skip")
    assert [e.id for e in splits["train"]] == [e.id for e in whole["train"] if image_reference(e.image).file != gone]
    Path(gone).touch()  # as a download that failed leaves it
    assert [e.id for e in read(root, missing="skip")["train"]] == [e.id for e in splits["train"]]
    notes = SherlockReader(SherlockOptions(missing="skip")).check(root, "inference", False).remarks
    assert any("left out because their images are missing" in remark for remark in notes)
