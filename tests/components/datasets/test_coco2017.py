"""COCO 2017 captions, from small files in the official layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from icltool.components.datasets.coco2017 import Coco2017Reader
from icltool.contracts import DatasetReader, Example
from icltool.errors import DataError
from icltool.execution.progress import SilentProgress
from tests.components.datasets.builders import (
    CAPTIONS,
    captions_content,
    edit,
    truncate,
    write_coco,
    write_image,
    write_json,
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "mscoco" / "mscoco2017")


def read(root: Path | None) -> dict[str, list[Example]]:
    splits = {}
    for split in Coco2017Reader().read(root, "caption", Path("unused"), SilentProgress()):
        splits[split.name] = list(split.examples)
        assert split.count == len(splits[split.name])
    return splits


def refused(root: Path | None, verify: bool = False) -> DataError:
    with pytest.raises(DataError) as caught:
        Coco2017Reader().check(root, "caption", verify)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def captions(base: Path, split: str = "train") -> Path:
    return base / "annotations" / f"captions_{split}2017.json"


def test_satisfies_the_protocol() -> None:
    assert isinstance(Coco2017Reader(), DatasetReader)


def test_examples_by_image_id_with_all_captions(base: Path) -> None:
    splits = read(base)
    assert list(splits) == ["train", "validation"]
    assert [e.id for e in splits["train"]] == [9, 25, 139]
    second = splits["train"][1]
    assert second.references == ("a café, at night", "ein Café", "☕")
    assert second.label == second.text == "a café, at night"
    assert second.image == str(base / "train2017" / "000000000025.jpg")
    assert Path(second.image).is_file()
    assert (second.image_id, second.question, second.group) == (25, "", "")
    assert [e.label for e in splits["validation"]] == ["a bed", "a skier"]


@pytest.mark.parametrize("above", [0, 1, 2])
def test_root_may_be_given_at_three_levels(base: Path, above: int) -> None:
    root = [base, *base.parents][above]
    assert Coco2017Reader().find(root) == base


def test_root_from_environment(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCO_PATH", str(base.parent))
    assert len(read(None)["train"]) == 3
    monkeypatch.delenv("COCO_PATH")
    error = refused(None)
    assert error.message == "data set 'coco2017' needs a folder"
    assert "COCO_PATH" in str(error.hint)


def test_relative_root_gives_absolute_paths(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent.parent)
    assert read(Path("mscoco"))["train"][0].image == str(base / "train2017" / "000000000009.jpg")


def test_report_names_files_and_unofficial_counts(base: Path) -> None:
    report = Coco2017Reader().check(base, "caption", verify=True)
    assert report.files == (captions(base), captions(base, "val"))
    assert report.remarks == (
        "captions_train2017.json has 3 captioned images; the official split has 118,287",
        "captions_val2017.json has 2 captioned images; the official split has 5,000",
    )


def test_groups_of_near_duplicates(base: Path) -> None:
    groups = base / "annotations" / "near_duplicates.json"
    write_json(groups, {"train": {"9": "cats", "139": "dögs"}, "val": {"9": "of another split"}})
    splits = read(base)
    assert [e.group for e in splits["train"]] == ["cats", "", "dögs"]
    assert [e.group for e in splits["validation"]] == ["", ""]
    assert groups in Coco2017Reader().check(base, "caption", verify=False).files


@pytest.mark.parametrize("content", [{"train": ["9"]}, {"train": {"nine": "cats"}}, {"train": {"9": 4}}])
def test_malformed_groups(base: Path, content: object) -> None:
    write_json(base / "annotations" / "near_duplicates.json", content)
    assert "near_duplicates.json: 'train'" in refused(base).message


def test_empty_captions_and_images_without_captions_are_left_out(tmp_path: Path) -> None:
    base = write_coco(tmp_path, {"train": {1: ["", "  a  cat\n", " \t"], 2: [" "], 3: []}, "val": {4: ["x"]}})
    assert [e.references for e in read(base)["train"]] == [("a cat",)]
    remarks = Coco2017Reader().check(base, "caption", verify=False).remarks
    assert remarks[:2] == (
        "captions_train2017.json: 3 empty captions left out",
        "captions_train2017.json: 2 images without captions left out",
    )


def test_no_captions_at_all(tmp_path: Path) -> None:
    base = write_coco(tmp_path, {"train": {1: [" "]}, "val": {4: ["x"]}})
    assert refused(base).message == f"{captions(base)} has no captions"


def test_nothing_there(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.message.startswith(f"no COCO 2017 in {tmp_path}: ")
    assert "annotations_trainval2017.zip" in str(error.hint)


def test_root_missing_or_a_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere").message == f"{tmp_path / 'nowhere'} does not exist"
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file").message == f"{tmp_path / 'file'} is not a folder"


def test_everything_missing_is_listed_at_once(base: Path) -> None:
    captions(base, "val").unlink()
    shutil.rmtree(base / "train2017")
    assert refused(base).message == f"{base} lacks annotations/captions_val2017.json, train2017"


def test_truncated_json(base: Path) -> None:
    truncate(captions(base))
    assert refused(base).message.startswith(f"{captions(base)} is cut off at line 1, column ")


def test_malformed_json_names_line_and_column(base: Path) -> None:
    captions(base).write_text('{"images": [],\n "annotations": [1, oops]}')
    error = refused(base)
    assert error.message == f"{captions(base)} is not well-formed JSON at line 2, column 21: Expecting value"


@pytest.mark.parametrize("content", [b"", b"   \n"])
def test_empty_file(base: Path, content: bytes) -> None:
    captions(base).write_bytes(content)
    assert f"{captions(base)} is cut off at line" in refused(base).message


def test_binary_in_place_of_json(base: Path) -> None:
    captions(base).write_bytes(b"PK\x03\x04\xff\xfe")
    assert refused(base).message == f"{captions(base)} is not JSON: byte 4 is not UTF-8"


def test_deeply_nested_json(base: Path) -> None:
    captions(base).write_text("[" * 200_000)
    assert str(captions(base)) in refused(base).message


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (
            {"images": [], "annotations": [{"bbox": [0, 0, 1, 1], "image_id": 9, "id": 1, "category_id": 3}]},
            "instances",
        ),
        ({"images": [], "annotations": [{"keypoints": [], "image_id": 9, "bbox": []}]}, "person keypoints"),
        ({"questions": [{"question": "why?", "question_id": 1, "image_id": 9}]}, "questions"),
        ({"images": [{"sentences": [], "filename": "x.jpg"}], "dataset": "coco"}, "captions in Karpathy's format"),
        ({"images": [{"id": 9, "file_name": "9.jpg"}], "categories": []}, "only a list of images"),
    ],
)
def test_file_of_another_kind(base: Path, content: object, held: str) -> None:
    write_json(captions(base), content)
    error = refused(base)
    assert error.message == f"{captions(base)} holds {held}, not captions"
    assert error.hint == "put captions_train2017.json of annotations_trainval2017.zip there"


@pytest.mark.parametrize("content", [{}, {"annotations": []}, {"annotations": "x"}])
def test_file_of_no_kind(base: Path, content: object) -> None:
    write_json(captions(base), content)
    assert refused(base).message == f"{captions(base)} holds no captions"


def test_list_in_place_of_an_object(base: Path) -> None:
    write_json(captions(base), [{"caption": "x", "image_id": 1, "id": 2}])
    assert "holds no annotations: expected an object" in refused(base).message


def test_validation_file_under_the_name_of_train(base: Path) -> None:
    shutil.copy(captions(base, "val"), captions(base))
    error = refused(base)
    assert error.message == (
        f"{captions(base)} belongs to the wrong split: its images are in val2017, not in train2017"
    )


def test_missing_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    base = write_coco(tmp_path, {"train": {i: ["x"] for i in range(1, 8)}, "val": {99: ["y"]}})
    for image_id in (2, 3, 5, 6):
        (base / "train2017" / f"{image_id:012d}.jpg").unlink()
    assert refused(base).message == (
        f"{captions(base)} names 4 images missing from {base / 'train2017'}: "
        "000000000002.jpg, 000000000003.jpg, 000000000005.jpg and 1 more"
    )


def test_captions_of_images_that_are_not_listed(base: Path) -> None:
    edit(captions(base), lambda content: content["images"].pop(0))
    assert refused(base).message == f"{captions(base)} has captions of 1 image not in its list: 9"


def test_image_listed_twice(base: Path) -> None:
    edit(captions(base), lambda content: content["images"].append(content["images"][0]))
    assert refused(base).message == f"{captions(base)} lists image 9 more than once"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"caption": None}, "caption is None"),
        ({"image_id": "9"}, "image_id is '9'"),
        ({"id": -4}, "id is -4"),
        ({"id": True}, "id is True"),
        ({"id": 2**63}, f"id is {2**63}"),
    ],
)
def test_entry_at_fault_is_named(base: Path, change: dict[str, object], fault: str) -> None:
    edit(captions(base), lambda content: content["annotations"][2].update(change))
    message = refused(base).message
    assert message == f"{captions(base)}: entry 2 of 'annotations' is not a caption: {fault}"


def test_entry_without_fields(base: Path) -> None:
    edit(captions(base), lambda content: content["annotations"][1].pop("caption"))
    assert refused(base).message.endswith("entry 1 of 'annotations' is not a caption: it has no caption")


def test_truncated_image_is_found_by_decoding(base: Path) -> None:
    image = base / "val2017" / "000000000785.jpg"
    truncate(image)
    assert refused(base).message.startswith(f"image {image} cannot be read: ")


def test_several_broken_images(base: Path) -> None:
    (base / "train2017" / "000000000009.jpg").write_bytes(b"")
    (base / "train2017" / "000000000025.jpg").write_text("no image")
    message = refused(base).message
    assert message.startswith(f"2 images in {base / 'train2017'} cannot be read: 000000000009.jpg (")


def test_sample_opens_fifty_and_verify_opens_all(tmp_path: Path) -> None:
    ids = range(1, 81)
    base = write_coco(tmp_path, {"train": {i: ["x"] for i in ids}, "val": {99: ["y"]}})
    for image_id in ids:  # broken all over: the sample meets 50 of them, --verify all
        (base / "train2017" / f"{image_id:012d}.jpg").write_bytes(b"broken")
    assert refused(base).message.startswith("50 images in ")
    assert refused(base, verify=True).message.startswith("80 images in ")


def test_directory_in_place_of_the_annotation_file(base: Path) -> None:
    captions(base).unlink()
    captions(base).mkdir()
    assert refused(base).message.startswith(f"{captions(base)} cannot be read: ")


def test_images_may_be_symbolic_links(base: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.jpg"
    image = base / "train2017" / "000000000009.jpg"
    write_image(elsewhere)
    image.unlink()
    image.symlink_to(elsewhere)
    Coco2017Reader().check(base, "caption", verify=True)
    elsewhere.unlink()
    assert "image " + str(image) in refused(base, verify=True).message


TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.integers(0, 2**62), st.lists(TEXTS, max_size=4), min_size=1, max_size=5))
def test_every_caption_that_is_not_blank_is_kept_in_order(base: Path, of_split: dict[int, list[str]]) -> None:
    captions_of = {i: [" ".join(t.split()) for t in texts if t.strip()] for i, texts in of_split.items()}
    captions_of = {i: texts for i, texts in captions_of.items() if texts}
    write_json(captions(base), captions_content(of_split))
    if not captions_of:
        with pytest.raises(DataError, match="no captions"):
            read(base)
        return
    examples = read(base)["train"]
    assert [e.id for e in examples] == sorted(captions_of)
    assert all(list(e.references) == captions_of[e.id] and e.label == captions_of[e.id][0] for e in examples)


def test_builders_agree_with_themselves(base: Path) -> None:
    assert {e.id: list(e.references) for e in read(base)["train"]} == CAPTIONS["train"]
