"""A folder of images with a table."""

from __future__ import annotations

import json
import shutil
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest

from icltool.components.datasets.folder import FolderOptions, FolderReader
from icltool.contracts import Example, group_code
from icltool.errors import ConfigError, DataError
from icltool.plugin.manager import component
from icltool.testing import QuietProgress, check_dataset
from tests.components.datasets.builders import truncate, write_image

CAPTIONS = "image,caption\na.png,a cat\nbb.png,two dogs\na.png,the cat\nccc.png,a bed\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.png", "bb.png", "ccc.png", "sub/dddd.png"):
        write_image(tmp_path / "data" / name, 16)
    return tmp_path / "data"


def table(root: Path, content: str, name: str = "table.csv") -> Path:
    (root / name).write_text(content, encoding="utf-8")
    return root


def read(root: Path, task: str = "caption", **options: Any) -> dict[str, list[Example]]:
    reader = FolderReader(FolderOptions(**options))
    splits = reader.read(root, task, Path("unused"), QuietProgress())
    return {split.name: list(split.examples) for split in splits}


def both(root: Path, task: str = "caption", **options: Any) -> list[Example]:
    """All examples by their image's name and id."""
    splits = read(root, task, **options)
    return sorted((e for examples in splits.values() for e in examples), key=lambda e: (Path(e.image).name, e.id))


def refused(root: Path | None, task: str = "caption", **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        FolderReader(FolderOptions(**options)).check(root, task, False)
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("task", "content"),
    [
        ("caption", CAPTIONS),
        ("vqa", "image,question,answer\na.png,what?,cat\nbb.png,how many?,2\n"),
        ("classification", "image,text,label\na.png,a cat,good\nbb.png,a dog,bad\n"),
        ("style", "image,caption,style\na.png,a cat,Sweet\nbb.png,a dog,Cold\n"),
    ],
)
def test_conforms(root: Path, tmp_path: Path, task: str, content: str) -> None:
    (tmp_path / "workspace").mkdir()
    check_dataset(lambda: component("datasets", "folder"), table(root, content), task, tmp_path / "workspace")


def test_each_row_is_a_caption_in_a_style(root: Path) -> None:
    rows = (
        "a.png,what a cat,Sweet,\na.png,a cat,Cold,no dog\nbb.png,a dog,,\nccc.png,,Sweet,\nsub/dddd.png,a bird,Cold,\n"
    )
    path = table(root, f"image,caption_1,personality,caption_2\n{rows}") / "table.csv"
    examples = both(root, "style", style="personality")
    assert [(e.label, e.style, e.references) for e in examples] == [
        ("what a cat", "Sweet", ("what a cat",)),
        ("a cat", "Cold", ("a cat", "no dog")),
        ("a bird", "Cold", ("a bird",)),
    ]
    remarks = FolderReader(FolderOptions()).check(root, "style", False).remarks
    assert f"{path}: 1 row without a style left out (line 4)" in remarks
    assert f"{path}: 1 empty caption left out (line 5)" in remarks
    assert "no column for style" in refused(table(root, CAPTIONS), "style").message


def test_captions_of_repeated_rows_of_a_list_and_of_numbered_columns_are_the_same(root: Path) -> None:
    first = both(table(root, CAPTIONS))
    assert [(e.image, e.label, e.text, e.references) for e in first] == [
        (str(root / "a.png"), "a cat", "a cat", ("a cat", "the cat")),
        (str(root / "bb.png"), "two dogs", "two dogs", ("two dogs",)),
        (str(root / "ccc.png"), "a bed", "a bed", ("a bed",)),
    ]

    def fields(examples: list[Example]) -> list[Any]:
        return [(e.image, e.image_id, e.label, e.references) for e in examples]

    listed = [("a.png", ["a cat", "the cat"]), ("bb.png", ["two dogs"]), ("ccc.png", "a bed")]
    (root / "table.csv").unlink()
    table(root, "".join(json.dumps({"image": i, "caption": c}) + "\n" for i, c in listed), "t.jsonl")
    assert fields(both(root)) == fields(first)
    (root / "t.jsonl").unlink()
    table(root, "image;caption_1;caption_2\na.png;a cat;the cat\nbb.png;two dogs;\nccc.png;;a bed\n")
    assert fields(both(root)) == fields(first)
    table(root, 'image;captions\na.png;"[""a cat"", ""the cat""]"\nbb.png;"[""two dogs""]"\nccc.png;a bed\n')
    assert fields(both(root)) == fields(first)


def test_a_held_out_share_is_drawn_by_image_and_stays_when_rows_are_added(root: Path) -> None:
    for i in range(40):
        shutil.copy(root / "a.png", root / f"n{i}.png")
        with (root / f"n{i}.png").open("ab") as file:
            file.write(bytes([i]))  # so that no two files are equal
    lines = [f"n{i}.png,question {q},yes\n" for i in range(40) for q in range(3)]
    table(root, "image,question,answer\n" + "".join(lines))
    splits = read(root, "vqa", validation=0.25)
    held = {e.image for e in splits["validation"]}
    assert (len(held), len(splits["validation"])) == (10, 30)
    assert not held & {e.image for e in splits["train"]}
    table(root, "image,question,answer\n" + "".join(reversed(lines)))
    assert {e.image for e in read(root, "vqa", validation=0.25)["validation"]} == held
    assert {e.image for e in read(root, "vqa", validation=0.25, seed=1)["validation"]} != held
    assert len({e.id for examples in splits.values() for e in examples}) == 120


def test_a_split_column(root: Path) -> None:
    table(root, "image,caption,split\na.png,a cat,train\nbb.png,b,VAL\nccc.png,c,test\nsub/dddd.png,d,train\n")
    splits = read(root)
    assert {name: [e.label for e in examples] for name, examples in splits.items()} == {
        "train": ["a cat", "d"],
        "validation": ["b"],
    }
    assert [e.label for e in read(root, validation="test")["validation"]] == ["c"]
    (remark,) = FolderReader(FolderOptions()).check(root, "caption", True).remarks
    assert "1 row of split 'test' left out" in remark
    assert refused(root, validation="val2").message.endswith(
        "has no rows of split 'val2'; column 'split' holds test, train, validation"
    )
    table(root, "image,caption,split\na.png,a cat,train\nbb.png,b,train\n")
    assert len(read(root)["validation"]) == 1
    table(root, "image,caption,split\na.png,a cat,val\n")
    assert "has no rows of split 'train'" in refused(root).message
    table(root, "image,caption,split\na.png,a cat,train\nbb.png,b,\n")
    assert refused(root).message.endswith("line 3: column 'split' is empty")


def test_a_text_with_a_label_is_classified_and_not_a_caption(root: Path) -> None:
    table(root, "image,text,label\na.png,a cat,pet\nbb.png,a bus,car\n")
    assert [e.label for e in both(root, task="classification")] == ["pet", "car"]
    assert refused(root, "caption").message.endswith("has no column for caption, which task 'caption' needs")
    assert [e.label for e in both(root, caption="text")] == ["a cat", "a bus"]


def test_columns_by_option_and_by_usual_names(root: Path) -> None:
    table(root, "Filename,text,what\na.png,a cat,x\nbb.png,a dog,y\n")
    assert [e.label for e in both(root)] == ["a cat", "a dog"]
    assert [e.label for e in both(root, caption="what")] == ["x", "y"]
    remarks = FolderReader(FolderOptions()).check(root, "caption", False).remarks
    assert [r.partition(": ")[2] for r in remarks[:2]] == [
        "column Filename is read as image",
        "column text is read as caption",
    ]
    error = refused(root, caption="colour")
    assert error.message.endswith("has no column 'colour' (option caption=)")
    assert error.hint == "its columns: 'Filename', 'text', 'what'"
    error = refused(root, "vqa")
    assert error.message.endswith("has no column for question, answers or answer, which task 'vqa' needs")
    assert "'Filename', 'text', 'what'" in str(error.hint)
    assert "--task caption" in str(error.hint)


def test_answers(root: Path) -> None:
    rows = [
        {"image": "a.png", "question": " what\nis it? ", "answers": ["cat", "Cat", "cat"], "question_type": "what"},
        {"image": "a.png", "question": "which?", "answers": [{"answer": "b"}, {"answer": "a"}], "answer": "a"},
        {"image": "bb.png", "question": "why?", "answers": [" "]},
        {"image": "bb.png", "question": "", "answers": ["x"]},
        {"image": "ccc.png", "question": "how many?", "answers": [], "answer": 3},
    ]
    table(root, "".join(json.dumps(r) + "\n" for r in rows), "t.jsonl")
    examples = both(root, "vqa")
    assert [(e.question, e.text, e.label, e.references) for e in examples] == [
        ("what is it?", "what is it?", "cat", ("cat", "Cat", "cat")),
        ("which?", "which?", "a", ("b", "a")),
        ("how many?", "how many?", "3", ("3",)),
    ]
    assert examples[0].question_type == "what"
    remarks = FolderReader(FolderOptions()).check(root, "vqa", False).remarks
    path = root / "t.jsonl"
    assert f"{path}: 1 question without an answer left out (line 3)" in remarks
    assert f"{path}: 1 empty question left out (line 4)" in remarks


def test_classification_with_and_without_images(root: Path) -> None:
    table(root, "text,label\nA good film!,1\nbad,0\na GOOD film,1\ngreat,-1\n,1\n")
    examples = both(root, "classification", choices="negative,positive")
    by_id = {e.id: e for e in examples}
    assert {i: e.label for i, e in by_id.items()} == {0: "positive", 1: "negative", 2: "positive"}
    assert all(e.choices == ("negative", "positive") and e.references == (e.label,) and e.image == "" for e in examples)
    assert by_id[0].group == by_id[2].group != by_id[1].group == ""
    assert by_id[0].image_id == by_id[2].image_id != by_id[1].image_id
    assert both(root, "classification")[0].choices == ("-1", "0", "1")
    assert "label '1' is not among the choices (a)" in refused(root, "classification", choices="a").message
    table(root, "text,label,image\nx,hateful,a.png\ny,fine,bb.png\n")
    assert [(Path(e.image).name, e.label, e.choices) for e in both(root, "classification")] == [
        ("a.png", "hateful", ("fine", "hateful")),
        ("bb.png", "fine", ("fine", "hateful")),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,label,choices,split\nwhat?,up,up|down,train\nwhen?,1,now|later|never,val\n", "later"),
        (
            'text,label,options,split\nwhat?,up,"[""up"", ""down""]",train\nwhen?,now,"[""now"", ""never""]",val\n',
            "now",
        ),
        (
            "text,label,choice_1,choice_2,choice_3,split\nwhat?,up,up,down,,train\nwhen?,now,now,later,never,val\n",
            "now",
        ),
    ],
)
def test_each_row_is_judged_among_its_own_choices(root: Path, content: str, expected: str) -> None:
    splits = read(table(root, content), "classification")
    [train], [query] = splits["train"], splits["validation"]
    assert train.choices == ("up", "down")
    assert query.label == expected
    assert query.label in query.choices
    assert set(query.choices) <= {"now", "later", "never"}


def test_choices_by_column_by_list_or_without(root: Path) -> None:
    content = "text,label,choices,answers,split\nwhat?,up,up|down,up|left,train\nwhen?,up,up|down,up|right,val\n"
    assert read(table(root, content), "classification", choices="answers")["train"][0].choices == ("up", "left")
    assert read(root, "classification", choices="up,down,left")["train"][0].choices == ("up", "down", "left")
    assert read(root, "classification", choices="")["train"][0].choices == ("up",)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("when?,sideways,up|down,val", "label 'sideways' is not among the choices"),
        ("when?,2,up|down,val", "label '2' is not among the choices"),
        ("when?,up,up,val", "two or more different choices"),
        ("when?,up,up|up,val", "two or more different choices"),
        ("when?,up,,val", "two or more different choices"),
    ],
)
def test_choices_that_hold_no_choice(root: Path, row: str, fault: str) -> None:
    error = refused(table(root, f"text,label,choices,split\nwhat?,up,up|down,train\n{row}\n"), "classification")
    assert fault in error.message
    assert "line 3" in error.message


def test_columns_that_no_task_reads_are_told(root: Path) -> None:
    table(root, "image,question,answer,options,split\na.png,what?,a,a|b,train\nbb.png,what?,b,a|b,val\n")
    remarks = FolderReader(FolderOptions()).check(root, "vqa", False).remarks
    assert (
        f"{root / 'table.csv'}: column options may hold choices, which task 'vqa' does not use (--task multiple-choice does)"
        in remarks
    )


def test_what_is_no_text_becomes_none_silently(root: Path) -> None:
    rows = [{"image": "a.png", "question": "how many?", "answer": 2.0, "split": "train"}]
    rows += [{"image": "bb.png", "question": "how many?", "answer": value, "split": "val"} for value in (1, 1.5)]
    table(root, "".join(json.dumps(row) + "\n" for row in rows), "t.jsonl")
    assert [e.label for e in both(root, "vqa")] == ["2", "1", "1.5"]
    remarks = FolderReader(FolderOptions()).check(root, "vqa", False).remarks
    path = root / "t.jsonl"
    assert f"{path}: column 'answer' holds numbers, which are read as text (line 1)" in remarks
    assert f"{path}: column 'answer' holds numbers, which are read as text (line 2, 3)" in remarks
    rows[1]["answer"] = float("nan")
    table(root, "".join(json.dumps(row) + "\n" for row in rows), "t.jsonl")
    assert [e.label for e in both(root, "vqa")] == ["2", "1.5"]
    rows[1]["answer"] = True
    table(root, "".join(json.dumps(row) + "\n" for row in rows), "t.jsonl")
    assert "column 'answer' holds the truth value true, not text" in refused(root, "vqa").message


def test_ids_are_whole_numbers_or_codes_of_texts(root: Path) -> None:
    table(root, "image,caption,id,image_id\na.png,a,q1,7\nbb.png,b,12,x\na.png,c,13,7\n")
    assert [(e.id, e.image_id) for e in both(root)] == [(group_code("q1"), 7), (12, group_code("x"))]
    assert any(
        "63-bit codes" in remark for remark in FolderReader(FolderOptions()).check(root, "caption", False).remarks
    )
    table(root, "image,caption,id\na.png,a,5\nbb.png,b,5\n")
    assert refused(root).message == f"{root / 'table.csv'} line 3 repeats the id 5 of line 2"
    assert [e.id for e in both(root, id="")] == [0, 1]
    table(root, "image,caption,id\na.png,a,5\na.png,b,5\nbb.png,b,6\n")  # the id of the image
    assert [e.id for e in both(root)] == [5, 6]
    table(root, "image,caption,id\na.png,a,\nbb.png,b,6\n")
    assert refused(root).message == f"{root / 'table.csv'} line 2 has no id"


def test_files_of_equal_bytes_are_one_image(root: Path) -> None:
    shutil.copy(root / "a.png", root / "z.png")
    table(root, "image,question,answer\nz.png,q,x\na.png,r,y\nbb.png,s,z\n")
    image_ids = {Path(e.image).name: e.image_id for e in both(root, "vqa")}
    assert image_ids["z.png"] == image_ids["a.png"] == group_code("a.png") != image_ids["bb.png"]


def test_empty_captions_are_left_out_and_told(root: Path) -> None:
    table(root, 'image,caption\na.png,"  "\na.png,"a\n cat"\nbb.png,\nccc.png,bed\n')
    assert [e.label for e in both(root)] == ["a cat", "bed"]
    remarks = FolderReader(FolderOptions()).check(root, "caption", False).remarks
    assert f"{root / 'table.csv'}: 2 empty captions left out (line 2, 5)" in remarks
    table(root, "image,caption\na.png,\n")
    assert "has no row that task 'caption' can use" in refused(root).message


def test_images_that_are_missing_or_broken(root: Path) -> None:
    table(root, "image,caption\na.png,a\nno.png,b\nno.png,c\nnor.png,d\n")
    assert refused(root).message == (
        f"{root / 'table.csv'} names 3 images missing from {root}: no.png (line 3), no.png (line 4), nor.png (line 5)"
    )
    table(root, "image,caption\na.png,a\n,b\n")
    assert refused(root).message == f"{root / 'table.csv'} line 3 names no image"
    table(root, CAPTIONS)
    truncate(root / "bb.png")
    assert "bb.png" in refused(root).message
    with pytest.raises(DataError, match=r"bb\.png"):
        FolderReader(FolderOptions()).verify(root, "caption", QuietProgress())


def test_absolute_paths_and_archives(root: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere.png", 16)
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        archive.write(root / "a.png", "in/x.png")
        archive.write(root / "ccc.png", "in/y.png")
    table(root, f"image,caption\n{tmp_path / 'elsewhere.png'},a\nmore.zip/in/x.png,b\nmore.zip/in/y.png,c\n")
    FolderReader(FolderOptions()).check(root, "caption", True)
    assert sorted(e.image for e in both(root)) == sorted(
        [str(tmp_path / "elsewhere.png"), str(root / "more.zip/in/x.png"), str(root / "more.zip/in/y.png")]
    )


def test_options_and_roots_that_are_wrong(root: Path) -> None:
    assert refused(None).message == "data set 'folder' needs a folder"
    table(root, CAPTIONS)
    assert "validation=test needs one" in refused(root, validation="test").message
    for share in (0, 1.5, -1, True, "Train"):
        with pytest.raises(ConfigError, match=r"validation(=True)? (is|must be)"):
            component("datasets", "folder", validation=share)
    table(root, "image,caption\na.png,a\n")
    assert "has one image" in refused(root).message


def test_names_that_another_system_wrote_are_found(root: Path) -> None:
    write_image(root / "sub" / unicodedata.normalize("NFD", "é.png"))
    write_image(root / "plain.png")
    table(root, f"image,caption\nsub\\{unicodedata.normalize('NFC', 'é.png')},a cat\nplain.png,a dog\na.png,a bed\n")
    names = {Path(e.image).name for e in both(root)}
    assert names == {unicodedata.normalize("NFD", "é.png"), "plain.png", "a.png"}
