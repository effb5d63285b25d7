"""Hateful Memes: whether an image with words on it is hateful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from icltool.components.datasets.entries import json_lines, text_of
from icltool.components.datasets.labelled_rows import whole_or_code
from icltool.components.datasets.official import one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.components.tasks import task_named
from icltool.contracts import Example, Options, Source, SourceFile, Task, TaskFormat
from icltool.errors import DataError

#: The choices by label; a hateful meme has label 1.
CHOICES = ("no", "yes")
#: Numbers of rows by file.
OFFICIAL: Mapping[str, int] = {"train": 8_500, "dev_seen": 500, "test_seen": 1_000}
_IMAGES = "img"


class HatefulMemesOptions(Options):
    """The queries."""

    queries: Literal["dev_seen", "test_seen", "dev_unseen", "test_unseen"] = Field(
        "dev_seen", description="split of the queries; the unseen ones have rows in common with the seen ones"
    )


class HatefulMemesReader(PublishedReader):
    """Reads `train.jsonl`, `dev_seen.jsonl` (or the file of `queries`; of phase 1, `dev.jsonl` and `test.jsonl`) and the folder
    `img` in --root, below it in `data` or `hateful_memes`, or below the environment variable HATEFUL_MEMES_PATH.

    The words on the image are the example's text, "yes" means hateful. The prompt is OpenFlamingo's, which asks whether the
    image is hateful. A split without labels cannot hold queries.
    """

    name = "hateful-memes"
    tasks = ("classification",)
    metrics: ClassVar[Mapping[str, tuple[str, ...]]] = {"classification": ("auc", "accuracy")}
    options_model = HatefulMemesOptions
    source = Source(
        "hatefulmemeschallenge.com",
        "the licence of the challenge, which forbids passing the data on",
        (
            SourceFile("train.jsonl", "", "8,500 memes"),
            SourceFile("dev_seen.jsonl", "", "500 memes"),
            SourceFile("test_seen.jsonl", "", "1,000 memes"),
            SourceFile("img", "", "the images"),
        ),
    )
    title = "Hateful Memes"
    variables = ("HATEFUL_MEMES_PATH",)
    folders = ("hateful_memes", "data", "")
    noun = "meme"

    def __init__(self, options: HatefulMemesOptions) -> None:
        self.options = options

    def definition(self, task: str) -> Task | None:
        """See DefinesTasks: the question that is asked of a meme."""
        prompts = {
            "completion": TaskFormat(
                "is an image with: '{text}' written on it. Is it hateful? Answer:", stop=("is an image",)
            ),
            "chat": TaskFormat("The words on the image are: '{text}' Is it hateful? Answer yes or no."),
        }
        return task_named(task).model_copy(update={"prompts": prompts, "image_prompts": {}})

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        bases = self.bases(root)
        folder = self.images(bases, [_IMAGES])
        for name, split in (("train", "train"), ("validation", self.options.queries)):
            first_phase = split.removesuffix("_seen")
            known = self.find(bases, f"{split}.jsonl") or self.find(bases, f"{first_phase}.jsonl")
            path = known or self.file(bases, f"{split}.jsonl")

            def row(record: Mapping[str, Any], _: int, path: Path = path) -> Example:
                if "label" not in record:
                    raise DataError(f"{path} has no labels", "choose other queries: --option queries=dev_seen")
                return _example(record, folder)

            examples = json_lines(path, row, "a meme", self.source.hint())
            yield Part(name, (path,), folder, examples, len(examples), OFFICIAL.get(split))


def _example(record: Mapping[str, Any], folder: Path) -> Example:
    label, image = record["label"], text_of(record["img"])
    if type(label) is not int or label not in (0, 1):
        raise ValueError(f"label {label!r} is neither 0 nor 1")
    identifier = whole_or_code(str(record["id"]).lstrip("0"))  # a number or a text, perhaps padded
    answer, text = CHOICES[label], one_line(text_of(record["text"]))
    if not text:
        raise ValueError("its text is empty")
    file = folder / image.removeprefix(f"{_IMAGES}/")
    return Example(identifier, str(file), identifier, text, answer, (answer,), choices=CHOICES)
