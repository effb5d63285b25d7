"""What a row of a table may hold beside an image and a text: several images, choices, labels by rule, further texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icltool.components.datasets.folder import FolderOptions, FolderReader
from icltool.contracts import Example, Task, TaskFormat
from icltool.errors import DataError
from icltool.testing import QuietProgress
from tests.components.datasets.builders import write_image

HEADED = Task(
    name="headed",
    fields=("image", "question", "headline"),
    answers="caption",
    metrics=("exact-match",),
    prompts={"completion": TaskFormat("{headline} {question} Answer:")},
)
CHOSEN = Task(
    name="chosen",
    fields=("image", "question", "choices"),
    optional=("rationale",),
    ranked=True,
    metrics=("accuracy",),
    prompts={"completion": TaskFormat("{question} {choices} Answer:")},
)
PICTURED = Task(name="pictured", fields=("image",), ranked=True, metrics=("accuracy",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for shade, name in enumerate(("a", "b", "c", "d")):
        write_image(tmp_path / "data" / f"{name}.png", 16 + shade)
    return tmp_path / "data"


def examples(
    root: Path, task: Task | str, content: str, name: str = "t.csv", **options: Any
) -> dict[str, list[Example]]:
    (root / name).write_text(content, "utf-8")
    reader = FolderReader(FolderOptions(**options))
    if isinstance(task, Task):
        reader.declare(task)
        task = task.name
    reader.check(root, task, False)
    return {s.name: list(s.examples) for s in reader.read(root, task, Path("unused"), QuietProgress())}


def queries(root: Path, task: Task | str, table: str, name: str = "t.csv", **options: Any) -> list[Example]:
    return examples(root, task, table, name, **options)["validation"]


def remarks(root: Path, task: str, **options: Any) -> tuple[str, ...]:
    return FolderReader(FolderOptions(**options)).check(root, task, False).remarks


def fault(root: Path, task: Task | str, content: str, name: str = "t.csv", **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        examples(root, task, content, name, **options)
    assert "\n" not in caught.value.message
    return caught.value.message.removeprefix(str(root / name)).strip()


ROWS = "image,question,answer,split\nd.png,why?,x,train\n"


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("t.csv", ROWS + '"[""b.png"", ""a.png""]",how?,y,val\n'),
        ("t.csv", "img_1,img_2,question,answer,split\nd.png,,why?,x,train\nb.png,a.png,how?,y,val\n"),
        ("t.jsonl", json.dumps({"images": ["b.png", "a.png"], "question": "how?", "answer": "y", "split": "val"})),
    ],
)
def test_several_images_are_a_list_or_numbered_columns(root: Path, name: str, table: str) -> None:
    if name == "t.jsonl":
        table += "\n" + json.dumps({"images": ["d.png"], "question": "why?", "answer": "x", "split": "train"})
    (example,) = queries(root, "vqa", table, name)
    assert [Path(image).name for image in example.images] == ["b.png", "a.png"]
    assert len(set(example.image_ids)) == 2
    assert not example.images_in_text


def test_an_image_has_one_id_wherever_it_stands(root: Path) -> None:
    table = 'image,question,answer\n"[""a.png"", ""b.png""]",how?,y\nb.png,why?,x\nc.png,who?,z\nd.png,when?,w\n'
    splits = examples(root, "vqa", table, validation=0.3)
    of_first, of_b = sorted((e for s in splits.values() for e in s if "b.png" in str(e.images)), key=lambda e: e.id)
    assert of_first.more_image_ids == (of_b.image_id,)
    assert sum(of_b in split for split in splits.values() if of_first in split) == 1, "they share an image"


def test_ids_of_several_images_from_a_column(root: Path) -> None:
    table = 'image,image_id,question,answer,split\n"[""a.png"", ""b.png""]","[""7"", ""8""]",how?,y,val\nc.png,9,q?,x,train\n'
    assert queries(root, "vqa", table)[0].image_ids == (7, 8)
    short = table.replace('"[""7"", ""8""]"', "7")
    assert fault(root, "vqa", short).startswith("line 2 has 2 images, but column 'image_id' holds 1 id")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (ROWS + '"[""b.png"", """", ""a.png""]",how?,y,val\n', "line 3: item 2 of column 'image' is empty"),
        ("image_1,image_2,image_3,question,answer\nb.png,,a.png,how?,y\n", "line 2: column 'image_2' is empty"),
        ("image_1,image_3,question,answer\nb.png,a.png,how?,y\n", "has the columns image_1, image_3, but no image_2"),
        (ROWS + '"[""b.png"", 3]",how?,y,val\n', "line 3: column 'image' is not a path: 3"),
        (ROWS + '"[""b.png"", ""e.png""]",how?,y,val\n', "names 1 image missing from"),
    ],
)
def test_a_list_of_images_with_a_hole(root: Path, table: str, message: str) -> None:
    assert fault(root, "vqa", table).startswith(message)


def test_a_marker_is_the_place_of_the_next_image(root: Path) -> None:
    table = ROWS + '"[""b.png"", ""a.png""]",is [i] <image> [i]?,y,val\n'
    (plain,) = queries(root, "vqa", table)
    assert (plain.question, plain.images_in_text) == ("is [i] <image> [i]?", False)
    (marked,) = queries(root, "vqa", table, marker="[i]")
    assert (marked.question, marked.images_in_text) == ("is <image> < image> <image>?", True)
    assert marked.text == "is <image> ?", "texts are compared without the places"
    message = fault(root, "vqa", table.replace("[i]?", "?"), marker="[i]")
    assert message == "line 3 has 2 images, but [i] is 1 times in its texts"


def test_places_among_choices(root: Path) -> None:
    table = "image_1,image_2,question,choices,answer,split\na.png,b.png,w?,<image>|<image> too,1,val\nc.png,,q?,x|y,x,train\n"
    (example,) = queries(root, CHOSEN, table, marker="<image>")
    assert example.images_in_text
    assert example.choices == ("<image>", "<image> too")
    assert example.label == "<image> too"


CHOICES = "image,question,{},answer,split\na.png,q?,{},{},val\nb.png,q?,{},{},train\n"


@pytest.mark.parametrize(
    ("columns", "cells"),
    [
        ("choices", "no|yes|2"),
        ("options", '"[""no"", ""yes"", ""2""]"'),
        ("choice_1,choice_2,choice_3,choice_4", "no,yes,2,"),
        ("option_a,option_b,option_c", "no,yes,2"),
    ],
)
@pytest.mark.parametrize(
    ("answer", "kind", "label"),
    [
        ("yes", None, "yes"),
        ("1", None, "yes"),
        ("B", None, "yes"),
        ("2", None, "2"),
        ("2", "index", "2"),
        ("b", "letter", "yes"),
        ("0", "index", "no"),
    ],
)
def test_a_label_is_text_number_or_letter(
    root: Path, columns: str, cells: str, answer: str, kind: str | None, label: str
) -> None:
    (example,) = queries(root, CHOSEN, CHOICES.format(columns, cells, answer, cells, answer), answer_kind=kind)
    assert (example.label, example.choices) == (label, ("no", "yes", "2"))


@pytest.mark.parametrize(
    ("answer", "kind"), [("maybe", None), ("3", None), ("-1", "index"), ("yes", "letter"), ("1", "text"), ("d", None)]
)
def test_a_label_that_is_none_of_its_choices(root: Path, answer: str, kind: str | None) -> None:
    table = f"image,question,choices,answer\na.png,q?,no|yes|2,{answer}\nb.png,q?,a|b,a\n"
    message = fault(root, CHOSEN, table, answer_kind=kind)
    assert message == f"line 2: label {answer!r} is not among the choices (no, yes, 2)"


def test_how_labels_were_read_is_a_remark(root: Path) -> None:
    rows = "a.png,q?,no|yes,1,train\nb.png,r?,no|yes,B,train\nc.png,s?,no|yes,no,train\nd.png,t?,u|v,u,val\n"
    (root / "t.csv").write_text(f"image,text,choices,label,split\n{rows}")
    (remark,) = [r for r in remarks(root, "classification") if "labels are read" in r]
    assert remark.endswith(
        "labels are read 1 as the text, 1 as the number from 0, 1 as the letter of a choice (--option answer_kind= decides)"
    )


def test_rationale_and_further_texts(root: Path) -> None:
    rows = "a.png,q?,Big news,y,because it is,val\nb.png,r?,,x,,train\nc.png,r?,Old,x,,train\n"
    table = f"image,question,headline,caption,rationale,split\n{rows}"
    splits = examples(root, HEADED, table)
    (example,) = splits["validation"]
    assert (dict(example.fields), example.rationale) == ({"headline": "Big news"}, "because it is")
    assert [e.fields["headline"] for e in splits["train"]] == ["Old"]


def test_labels_by_rule(root: Path) -> None:
    rows = [
        {"image": ["a.png", "b.png"], "question": "?", "labels": {"+": 5, "-": 1}, "split": "train"},
        {"image": ["b.png", "c.png"], "question": "?", "answer": "4", "rule": "-", "split": "val"},
    ]
    splits = examples(root, "vqa", "\n".join(map(json.dumps, rows)), "t.jsonl")
    assert dict(splits["train"][0].labels) == {"+": "5", "-": "1"}
    assert splits["train"][0].label == "5"
    assert (splits["validation"][0].rule, splits["validation"][0].label) == ("-", "4")
    rows[0]["labels"] = "five"
    message = fault(root, "vqa", "\n".join(map(json.dumps, rows)), "t.jsonl")
    assert message == "line 1: column 'labels' is not a JSON object of texts"


def test_images_with_a_label_alone(root: Path) -> None:
    table = "image,label,split\na.png,cat,train\nb.png,dog,train\nc.png,cat,val\n"
    splits = examples(root, PICTURED, table)
    assert [(e.text, e.label) for e in splits["train"]] == [("cat", "cat"), ("dog", "dog")]
    assert [(e.text, e.label, e.choices) for e in splits["validation"]] == [("", "cat", ("cat", "dog"))]


def test_answers_split_by_a_separator(root: Path) -> None:
    table = ROWS + "a.png,how?,y| z|y,val\n"
    assert queries(root, "vqa", table)[0].references == ("y| z|y",)
    (example,) = queries(root, "vqa", table, answers_separator="|")
    assert (example.references, example.label) == (("y", "z", "y"), "y")


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_a_json_list_and_an_object_with_one(root: Path, name: str) -> None:
    rows = [
        {"image": f"{i}.png", "question": "q?", "answer": i, "split": "val" if i == "a" else "train"} for i in "abc"
    ]
    (example,) = queries(root, "vqa", json.dumps(rows, indent=1), name)
    assert example.label == "a"
    if name == "t.json":
        wrapped = json.dumps({"info": {"data": [1]}, "data": rows}, indent=1)
        assert queries(root, "vqa", wrapped, name) == [example]
        assert fault(root, "vqa", json.dumps({"a": rows, "b": rows}), name).startswith("is a JSON object with 2 lists")
        assert fault(root, "vqa", wrapped.replace("a.png", "x.png"), name).endswith("x.png (line 8)")


def test_an_image_may_be_missing_where_the_task_can_do_without(root: Path) -> None:
    table = "image,text,label,split\na.png,good,x,train\n,bad,y,train\nb.png,ugly,x,val\n"
    assert [e.images == () for e in examples(root, "classification", table)["train"]] == [False, True]


def test_image_paths_and_answers_from_two_files_of_questions_and_annotations(root: Path) -> None:
    """Real rows of TextVQA and of VizWiz, in the form of VQAv2's files."""
    rows = json.loads((Path(__file__).parents[2] / "fixtures" / "vqa_rows.json").read_text("utf-8"))
    for name, pattern in (("textvqa", "{image_id}.png"), ("vizwiz", "{image_id}")):
        folder = root / name
        for size, row in enumerate(rows[name]["questions"]["questions"], start=16):
            write_image(folder / pattern.replace("{image_id}", row["image_id"]), size)
        for part in ("questions", "annotations"):
            (folder / f"{part}.json").write_text(json.dumps(rows[name][part], indent=1), "utf-8")
        options = FolderOptions(
            table="questions.json",
            join="annotations.json",
            image=pattern,
            answer="multiple_choice_answer",
            validation=0.3,
        )
        reader = FolderReader(options)
        reader.check(folder, "vqa", True)
        splits = {s.name: list(s.examples) for s in reader.read(folder, "vqa", Path("unused"), QuietProgress())}
        read = {e.id: e for split in splits.values() for e in split}
        assert len(read) == 20
        for row in rows[name]["annotations"]["annotations"]:
            example = read[row["question_id"]]
            assert list(example.references) == [a["answer"] for a in row["answers"]]
            assert example.image.startswith(str(folder / row["image_id"]))


def test_tables_that_cannot_be_joined(root: Path) -> None:
    (root / "more.csv").write_text("question_id,answer\n5,x\n")
    table = "question_id,image,question\n1,a.png,q?\n2,b.png,q?\n"
    assert "has the question_id of a row of" in fault(root, "vqa", table, table="t.csv", join="more.csv")
    (root / "more.csv").write_text("number,answer\n5,x\n")
    assert "no column of ids in common" in fault(root, "vqa", table, table="t.csv", join="more.csv")
    assert "has no column 'name' for {name}.png" in fault(root, "vqa", table, table="t.csv", image="{name}.png")


def test_labels_in_a_column_for_each_class(root: Path) -> None:
    table = "filename,forest,river,split\na.png,1,0,train\nb.png,0,1,train\nc.png,0,1.0,val\n"
    (example,) = queries(root, PICTURED, table, onehot=True)
    assert (example.label, example.choices) == ("river", ("forest", "river"))
    assert fault(root, PICTURED, table.replace("b.png,0", "b.png,1"), onehot=True).startswith(
        "line 3: 2 of the columns of classes is 1"
    )
    assert fault(root, PICTURED, "filename,label\na.png,x\nb.png,y\n", onehot=True) == "has no columns of 0 and 1"
