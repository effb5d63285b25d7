"""TextVQA: questions about the text in an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from icltool.components.datasets.answered import Answered, AnsweredOptions, AnsweredReader
from icltool.components.datasets.entries import text_of, texts_of, whole
from icltool.contracts import Source, SourceFile

#: Answers that say that there is none.
NO_ANSWER = frozenset({"unanswerable", "answering does not require reading text in the image"})


class TextVQAOptions(AnsweredOptions):
    """Which answers are labels."""

    keep_unanswerable: bool = Field(
        False, description="keep examples in the index set whose label says that the image has no answer"
    )


class TextVQAReader(AnsweredReader):
    """Reads `TextVQA_0.5.1_{train,val}.json`, or OpenFlamingo's two files of each split, and the images of both splits in
    `train_images` (or train_val_images.zip); without --root, below the environment variable TEXTVQA_PATH.

    The index set is train, the queries are val. Ids are the file's question ids; the 16 hexadecimal digits that name an image
    become a code. The texts that were recognised in the images (OCR) are not used.
    """

    image_namespace = "openimages"
    name = "textvqa"
    metrics: ClassVar[Mapping[str, tuple[str, ...]]] = {"vqa": ("textvqa-accuracy", "vqa-accuracy")}
    options_model = TextVQAOptions
    options: TextVQAOptions
    source = Source(
        "textvqa.org/dataset",
        "CC BY 4.0",
        (
            SourceFile("TextVQA_0.5.1_train.json", "", "34,602 questions"),
            SourceFile("TextVQA_0.5.1_val.json", "", "5,000 questions"),
            SourceFile("train_val_images.zip", "", "the images of both"),
        ),
    )
    title = "TextVQA"
    variables = ("TEXTVQA_PATH",)
    folders = ("textvqa", "")
    official_file = "TextVQA_0.5.1_{part}.json"
    image_folders: ClassVar[Mapping[str, str]] = {"train": "train_images", "val": "train_images"}
    image_archives: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("train", "val"), ("train_val_images.zip",))
    official: ClassVar[Mapping[str, int]] = {"train": 34_602, "validation": 5_000}

    def __init__(self, options: TextVQAOptions) -> None:
        super().__init__(options)
        self.options = options

    def official_row(self, record: Mapping[str, Any], position: int) -> Answered:
        image, question = text_of(record["image_id"]), text_of(record["question"])
        return Answered(whole(record["question_id"]), image, question, texts_of(record["answers"]))

    def image_name(self, image: str) -> str:
        return f"{image}.jpg"

    def demonstrates(self, label: str) -> bool:
        return self.options.keep_unanswerable or label.lower() not in NO_ANSWER

    def paired_type(self, row: Answered) -> str:
        return ""  # "none of the above" in every row
