"""PersonalityCaptions from its official files: styles, splits, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from icltool.components.datasets.personality_captions import PersonalityCaptionsOptions, PersonalityCaptionsReader
from icltool.contracts import Example, group_code
from icltool.errors import ConfigError, DataError
from icltool.execution.progress import SilentProgress
from icltool.plugin.manager import component
from icltool.testing.datasets import check_dataset
from tests.components.datasets.builders import edit, pack, truncate, write_json
from tests.components.datasets.caption_builders import write_personality_captions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_personality_captions(tmp_path / "data")


def read(root: Path | None, **options: Any) -> dict[str, list[Example]]:
    splits = {}
    for split in PersonalityCaptionsReader(PersonalityCaptionsOptions(**options)).read(
        root, "style", Path("unused"), SilentProgress()
    ):
        splits[split.name] = list(split.examples)
        assert split.count == len(splits[split.name])
    return splits


def remarks(root: Path, **options: Any) -> tuple[str, ...]:
    return PersonalityCaptionsReader(PersonalityCaptionsOptions(**options)).check(root, "style", False).remarks


def refused(root: Path | None, verify: bool = False, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        PersonalityCaptionsReader(PersonalityCaptionsOptions(**options)).check(root, "style", verify)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_satisfies_the_suite(root: Path, tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    check_dataset(PersonalityCaptionsReader, root, "style", tmp_path / "ws")


def test_a_caption_is_an_example(root: Path) -> None:
    splits = read(root)
    assert list(splits) == ["train", "validation", "development"]
    assert [(e.style, e.label, e.text, e.references) for e in splits["train"]] == [
        ("Sweet", "what a lovely dog", "what a lovely dog", ("what a lovely dog",)),
        ("Anxious", "will it bite?", "will it bite?", ("will it bite?",)),
        ("Sarcastic", "oh great, a dog", "oh great, a dog", ("oh great, a dog",)),
    ]
    first, other, last = splits["train"]
    assert first.image == str(root / "yfcc_images" / "aa.jpg")
    assert first.image_id == last.image_id == group_code("aa") != other.image_id
    assert [e.references for e in splits["validation"]] == [
        ("I love it", "so lovely", "how cute"),
        ("too high!", "I fear it"),
    ]
    assert [e.label for e in splits["development"]] == ["so pretty"]
    assert remarks(root) == ()


def test_ids_stay_in_another_order(root: Path) -> None:
    expected = {e.id: e.label for e in read(root)["train"]}
    assert len(expected) == 3
    edit(root / "personality_captions" / "train.json", lambda content: content.reverse())
    assert {e.id: e.label for e in read(root)["train"]} == expected


def test_the_queries_may_be_the_validation_file(root: Path) -> None:
    splits = read(root, split="validation")
    assert {name: [e.label for e in examples] for name, examples in splits.items() if name != "train"} == {
        "validation": ["so pretty"]
    }
    (root / "personality_captions" / "test.json").unlink()
    assert list(read(root, split="val")) == ["train", "validation"]
    assert refused(root).message == f"{root / 'personality_captions'} lacks test.json"


def test_without_a_validation_file_there_is_no_development(root: Path) -> None:
    (root / "personality_captions" / "val.json").unlink()
    assert list(read(root)) == ["train", "validation"]
    assert remarks(root) == (f"no split 'development': {root / 'personality_captions'} has no val.json",)
    assert refused(root, split="validation").message == f"{root / 'personality_captions'} lacks val.json"


def test_styles_that_are_not_listed_are_remarked_on(root: Path) -> None:
    edit(root / "personality_captions" / "train.json", lambda content: content[0].update(personality="Peaceful"))
    assert remarks(root) == ("train: 1 style not in personalities.txt: Peaceful",)
    assert read(root)["train"][0].style == "Peaceful"
    (root / "personality_captions" / "personalities.txt").unlink()
    assert remarks(root) == ("no personalities.txt beside train.json: the styles are those of the examples",)


def test_a_list_of_styles_of_ones_own(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "styles.txt"
    path.write_text("Sweet\nAdventurous\n")
    splits = read(root, styles=str(path))
    assert {name: [e.style for e in examples] for name, examples in splits.items()} == {
        name: ["Sweet"] for name in splits
    }
    report = PersonalityCaptionsReader(PersonalityCaptionsOptions(styles=str(path))).check(root, "style", False)
    assert report.remarks == (
        "train: 2 entries in a style that is not chosen left out",
        "validation: 1 entry in a style that is not chosen left out",
        f"{path}: no example is in the style Adventurous",
    )
    assert path in report.files
    path.write_text("Adventurous\n")
    assert refused(root, styles=str(path)).message.endswith("train.json has no captions to use")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "Sweet\n\nAnxious\nSweet\nHappy",
            "line 2 is empty, 'Sweet' is listed 2 times, 'Happy' is not in personalities.txt",
        ),
        ("", "it is empty"),
    ],
)
def test_a_wrong_list_of_styles(root: Path, tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "styles.txt"
    path.write_text(text)
    assert refused(root, styles=str(path)).message == f"{path} is not a list of styles: {fault}"
    assert refused(root, styles=str(tmp_path / "none.txt")).message.startswith(
        f"{tmp_path / 'none.txt'} cannot be read: "
    )


def test_repeated_and_empty_comments_are_left_out(root: Path) -> None:
    def change(content: list[Any]) -> None:
        content[1]["comment"] = " "
        content += [dict(content[0]), {**content[0], "comment": "such fur"}]

    edit(root / "personality_captions" / "train.json", change)
    assert [e.label for e in read(root)["train"]] == ["what a lovely dog", "oh great, a dog", "such fur"]
    assert remarks(root) == (
        "train: 1 entry without a comment left out",
        "train: 1 entry that is there already left out",
    )


def test_places_archives_and_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [e.label for e in read(root)["train"]]
    monkeypatch.setenv("PERSONALITY_CAPTIONS_PATH", str(root))
    assert [e.label for e in read(None)["train"]] == expected
    pack(root / "yfcc_images.zip", root / "yfcc_images")
    assert (
        root / "yfcc_images.zip"
        in PersonalityCaptionsReader(PersonalityCaptionsOptions()).check(None, "style", True).files
    )
    assert read(None)["train"][0].image == str(root / "yfcc_images.zip" / "yfcc_images" / "aa.jpg")
    for path in (root / "personality_captions").iterdir():
        path.rename(root / path.name)
    assert [e.label for e in read(root)["train"]] == expected


def test_missing_files_and_images(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").message.startswith(f"no PersonalityCaptions in {tmp_path / 'empty'}")
    image = root / "yfcc_images" / "ee.jpg"
    truncate(image)
    assert refused(root, verify=True).message.startswith(f"image {image} cannot be read: ")
    image.unlink()
    path = root / "personality_captions" / "test.json"
    assert refused(root).message == f"{path} names 1 image missing from {image.parent}: ee.jpg"
    image.parent.rename(root / "elsewhere")
    assert refused(root).message == f"no images of PersonalityCaptions: {root} has no yfcc_images"


@pytest.mark.parametrize(
    "change",
    [{"image_hash": 3}, {"personality": " "}, {"comment": None}, {"additional_comments": "x"}, {"image_hash": "../a"}],
)
def test_an_entry_at_fault_is_named(root: Path, change: dict[str, Any]) -> None:
    path = root / "personality_captions" / "test.json"
    edit(path, lambda content: content[1].update(change))
    assert refused(root).message == f"{path}: entry 1 is not a caption in a personality"


def test_files_of_another_form(root: Path) -> None:
    path = root / "personality_captions" / "train.json"
    truncate(path)
    assert refused(root).message.startswith(f"{path} is cut off at line 1, column ")
    write_json(path, {"images": []})
    assert refused(root).message == f"{path} holds no list of captions"
    write_json(path, [])
    assert refused(root).message == f"{path} has no captions to use"


def test_groups_of_near_duplicates(root: Path) -> None:
    groups = {"val": {str(group_code("dd")): "dogs"}, "development": {str(group_code("cc")): "cats"}}
    write_json(root / "personality_captions" / "near_duplicates.json", groups)
    splits = read(root)
    assert [e.group for e in splits["validation"]] == ["dogs", ""]
    assert [e.group for e in splits["development"]] == ["cats"]


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="personality-captions"):
        component("datasets", "personality-captions", split="train")


def test_entries_of_images_that_are_gone_are_left_out_when_asked_to(root: Path) -> None:
    whole = read(root)
    gone = Path(whole["train"][0].image)
    gone.unlink()
    error = refused(root)
    assert f"1 image missing from {gone.parent}" in error.message
    assert "--option missing=skip" in (error.hint or "")
    splits = read(root, missing="skip")
    assert [e.id for e in splits["train"]] == [e.id for e in whole["train"] if Path(e.image) != gone]
    gone.touch()  # as a download that failed leaves it
    assert [e.id for e in read(root, missing="skip")["train"]] == [e.id for e in splits["train"]]
    remarks = PersonalityCaptionsReader(PersonalityCaptionsOptions(missing="skip")).check(root, "style", False).remarks
    assert any(f"1 missing image left out: {gone.name}" in remark for remark in remarks)
    with pytest.raises(ConfigError, match="missing must be 'refuse' or 'skip', got 'perhaps'"):
        component("datasets", "personality-captions", missing="perhaps")


def test_images_may_end_otherwise(root: Path) -> None:
    for image in Path(read(root)["train"][0].image).parent.iterdir():
        image.rename(image.with_suffix(".jpeg"))
    assert read(root, suffix="jpeg")["train"][0].image.endswith(".jpeg")
