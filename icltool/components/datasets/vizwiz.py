"""VizWiz-VQA: photographs and spoken questions of blind people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from icltool.components.datasets.answered import Answered, AnsweredReader
from icltool.components.datasets.entries import text_of, texts_of
from icltool.contracts import Source, SourceFile

UNANSWERABLE = "unanswerable"


class VizWizReader(AnsweredReader):
    """Reads `{train,val}.json`, in --root or in `Annotations` (packed or not), or OpenFlamingo's two files of each split, and
    the images in `train` and `val` (or train.zip, val.zip); without --root, below the environment variable VIZWIZ_PATH.

    The index set is train, the queries are val; test has no answers. An example's id is its row in the file. The references
    are as the annotators gave them, which `vizwiz-accuracy` needs. Figures are broken down by the type of the answer, and by
    whether a question can be answered at all.
    """

    name = "vizwiz"
    metrics: ClassVar[Mapping[str, tuple[str, ...]]] = {"vqa": ("vizwiz-accuracy", "vqa-accuracy")}
    source = Source(
        "vizwiz.org/tasks-and-datasets/vqa",
        "CC BY 4.0",
        (
            SourceFile("Annotations.zip", "", "train.json and val.json"),
            SourceFile("train.zip", "", "20,523 images"),
            SourceFile("val.zip", "", "4,319 images"),
        ),
    )
    title = "VizWiz"
    variables = ("VIZWIZ_PATH",)
    folders = ("vizwiz", "vizwiz/Annotations", "Annotations", "")
    official_file = "{part}.json"
    archives = ("Annotations.zip",)
    image_folders: ClassVar[Mapping[str, str]] = {"train": "train", "val": "val"}
    image_archives: ClassVar[Mapping[str, tuple[str, ...]]] = {"train": ("train.zip",), "val": ("val.zip",)}
    official: ClassVar[Mapping[str, int]] = {"train": 20_523, "validation": 4_319}

    def official_row(self, record: Mapping[str, Any], position: int) -> Answered:
        image, question = text_of(record["image"]), text_of(record["question"])
        return Answered(position, image, question, texts_of(record["answers"]), text_of(record.get("answer_type", "")))

    def aspects(self, answer_type: str) -> dict[str, str]:
        return {"answerable": "no" if answer_type == UNANSWERABLE else "yes"} if answer_type else {}
