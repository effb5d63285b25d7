"""GQA: compositional questions on images, with one answer each."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from icltool.components.datasets.entries import converted, text_of
from icltool.components.datasets.json_stream import read_members
from icltool.components.datasets.labelled_rows import whole_or_code
from icltool.components.datasets.official import counted, one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.contracts import Example, Options, Source, SourceFile, file_stamp
from icltool.errors import DataError

#: The official numbers of questions by file.
OFFICIAL: Mapping[str, int] = {"train_balanced": 943_000, "val_balanced": 132_062, "testdev_balanced": 12_578}
_ALL = tuple(f"train_all_questions/train_all_questions_{number}.json" for number in range(10))
_ARCHIVES, _IMAGE_ARCHIVES = ("questions1.2.zip",), ("images.zip", "allImages.zip")
_IMAGE = re.compile(r"n?\d+", re.ASCII)
#: Operations that the official evaluation does not count as steps.
_NO_STEPS = ("exist", "query: name", "choose name")


class GqaOptions(Options):
    """Which questions are demonstrations and queries."""

    index: Literal["balanced", "all"] = Field(
        "balanced", description="questions of the index set: the balanced ones of train, or all of train (14 million)"
    )
    queries: Literal["testdev", "val"] = Field(
        "testdev", description="split of the queries, of which the balanced ones"
    )


@dataclass(frozen=True, slots=True)
class _Question:
    """A question as the file has it."""

    id: int
    image: str
    text: str
    answer: str
    balanced: bool
    open: bool
    aspects: dict[str, str]


@dataclass(frozen=True)
class _Survey:
    """What a pass through the files of a split found: how many questions they have, how many of them balanced, and the names of
    their images (of the balanced ones' with `only_balanced`), each once."""

    count: int
    balanced: int
    images: tuple[str, ...]


class _Questions:
    """The questions of a split, which are read from the files whenever they are gone through."""

    def __init__(self, files: Sequence[Path], folder: Path, only_balanced: bool, survey: _Survey, hint: str) -> None:
        self._files, self._folder, self._only_balanced, self._hint = files, folder, only_balanced, hint
        self._count = survey.balanced if only_balanced else survey.count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Example]:
        for _, question in _read(self._files, self._hint):
            if question.balanced or not self._only_balanced:
                yield _example(question, self._folder)


class GqaReader(PublishedReader):
    """Reads `train_balanced_questions.json` and `testdev_balanced_questions.json` (or questions1.2.zip) and the folder `images`
    (or images.zip) in --root, below it in `gqa`, or below the environment variable GQA_PATH.

    The index set is train, the queries are testdev (`queries=val`: val). With `index=all` the index set is read from
    `train_all_questions/train_all_questions_{0..9}.json`. Questions are read one after another, never a file as a whole. Ids of
    questions and images that are not numbers, or begin with 0, become codes.

    The answer type is "open" or "binary". Figures are broken down as in the official evaluation: by structural and semantic
    type, by the number of reasoning steps and of words; besides by the global group of questions. The questions on an image
    form a group, so that intervals are resampled by image. The evaluation's consistency, validity, plausibility and grounding
    are left out: they need further answers or files.
    """

    image_namespace = "vg"
    name = "gqa"
    tasks = ("vqa",)
    metrics: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vqa": ("exact-match:norm=lmms", "exact-match:norm=strict", "gqa-distribution")
    }
    options_model = GqaOptions
    source = Source(
        "cs.stanford.edu/people/dorarad/gqa/download.html",
        "see there; Visual Genome, which the images are from, is CC BY 4.0",
        (
            SourceFile("questions1.2.zip", "1.4 GB", "{train,testdev}_balanced_questions.json and others"),
            SourceFile("images.zip", "", "the images of all splits"),
        ),
    )
    title = "GQA"
    variables = ("GQA_PATH",)
    folders = ("gqa", "")

    def __init__(self, options: GqaOptions) -> None:
        self.options = options
        self._surveys: dict[object, _Survey] = {}

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        bases = self.bases(root)
        balanced = self.options.index == "balanced"
        index = self._part("train", bases, ["train_balanced_questions.json"] if balanced else _ALL)
        yield index
        queries = self._part("validation", bases, [f"{self.options.queries}_balanced_questions.json"])
        if queries.images and set(queries.images) <= set(index.images or ()):
            raise DataError(
                f"{queries.files[0]} belongs to the wrong split: all its images are in {index.files[0].name}, too",
                self.source.hint(),
            )
        yield queries

    def _part(self, name: str, bases: Sequence[Path], names: Sequence[str]) -> Part:
        """The files of a split, and what they hold. Queries are balanced questions."""
        files = tuple(self.file(bases, file, _ARCHIVES) for file in names)
        folder = self.images(bases, ["images"], _IMAGE_ARCHIVES)
        only_balanced = name == "validation"
        survey = self._surveyed(files, only_balanced)
        questions = _Questions(files, folder, only_balanced, survey, self.source.hint())
        left = survey.count - len(questions)
        remarks = (f"{files[0].name}: {counted(left, 'question')} outside the balanced ones left out",) if left else ()
        official = OFFICIAL.get(files[0].name.removesuffix("_questions.json"))
        return Part(name, files, folder, questions, survey.count, official, remarks, images=survey.images)

    def _surveyed(self, files: Sequence[Path], only_balanced: bool) -> _Survey:
        """The survey of the files, which is made once as long as they stay as they are."""
        key = (only_balanced, tuple((file, file_stamp(file)) for file in files))
        if key not in self._surveys:
            self._surveys[key] = _survey(files, only_balanced, self.source.hint())
        return self._surveys[key]


def _survey(files: Sequence[Path], only_balanced: bool, hint: str) -> _Survey:
    """Goes through all questions. Raises DataError for one that is none, or a repeated id."""
    ids, balanced, images = array("q"), 0, dict[str, None]()
    for _, question in _read(files, hint):
        ids.append(question.id)
        balanced += question.balanced
        if question.balanced or not only_balanced:
            images[f"{question.image}.jpg"] = None
    values = np.frombuffer(ids, dtype=np.int64) if ids else np.empty(0, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    again = order[1:][np.diff(values[order]) == 0]
    if len(again):
        key, _ = next(islice(_read(files, hint), int(again.min()), None))
        raise DataError(f"{files[0]} lists question {key} more than once", hint)
    return _Survey(len(ids), balanced, tuple(images))


def _read(files: Sequence[Path], hint: str) -> Iterator[tuple[str, _Question]]:
    """(key, question) of each entry of the files. Raises DataError that names the file and the entry that is not a question."""
    for path in files:
        for position, (key, record) in enumerate(read_members(path, hint)):
            fault = f"{path}: entry {key!r} is not a question with an answer"
            yield key, converted(record, partial(_question, key), position, fault, hint)


def _question(key: str, record: Mapping[str, Any], _: int) -> _Question:
    image, answer, balanced = text_of(record["imageId"]), one_line(text_of(record["answer"])), record["isBalanced"]
    text = one_line(text_of(record["question"]))
    if not _IMAGE.fullmatch(image):
        raise ValueError(f"imageId {image!r:.40} is not that of an image")
    if not (answer and text):
        raise ValueError(f"its {'answer' if text else 'question'} is empty")
    if not isinstance(balanced, bool):
        raise TypeError(f"isBalanced is {balanced!r:.40}")
    structural, group = text_of(record["types"]["structural"]), record["groups"]["global"]
    aspects = {
        "structural_type": structural,
        "semantic_type": text_of(record["types"]["semantic"]),
        "steps": str(_steps(record["semantic"])),
        "words": str(len(text.split())),
    }
    if group is not None:
        aspects["global_group"] = text_of(group)
    return _Question(whole_or_code(key), image, text, answer, balanced, structural == "query", aspects)


def _steps(semantic: Sequence[Mapping[str, Any]]) -> int:
    """The number of reasoning steps, as the official evaluation counts them."""
    operations = [f"{step['operation']}: {step['argument']}" for step in semantic]
    return sum(not any(word in operation for word in _NO_STEPS) for operation in operations)


def _example(question: _Question, folder: Path) -> Example:
    return Example(
        id=question.id,
        image=str(folder / f"{question.image}.jpg"),
        image_id=whole_or_code(question.image),
        text=question.text,
        label=question.answer,
        references=(question.answer,),
        question=question.text,
        group=f"image {question.image}",
        answer_type="open" if question.open else "binary",
        aspects=question.aspects,
    )
