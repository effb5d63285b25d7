"""easy-VQA, from the package of that name: questions about one coloured shape per image."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from icltool.components.datasets.folder import listed_choices
from icltool.components.datasets.images import check_decoding
from icltool.components.datasets.official import counted, few
from icltool.components.datasets.reader import FileReader, unofficial
from icltool.contracts import Example, Options, PreparedSplit, Progress, ReadReport, Source, SourceFile, read_whole
from icltool.errors import DataError
from icltool.world.easy_words import dataset_words, kind_of

Kind = Literal["colour", "shape", "yes-no"]

#: Our split name -> (the package's folder, number of its questions, what its image ids are raised by).
#: The package numbers the images of both splits from 0.
SPLITS = {"train": ("train", 38_575, 0), "validation": ("test", 9_673, 10_000)}
_ANSWERS = 10  # VQA accuracy expects ten answers to a question; the data set has one
_AGAIN = "`pip install --force-reinstall easy-vqa`"


def _listed(value: object) -> object:
    return listed_choices(value) if isinstance(value, str) else value


class EasyVqaOptions(Options):
    """Which questions, and which words for their answers."""

    kinds: Annotated[tuple[Kind, ...], BeforeValidator(_listed)] = Field(
        ("colour", "shape"),
        min_length=1,
        description="kinds of questions, separated by commas: colour, shape, yes-no (half of these are negated)",
    )
    lexicon: int | None = Field(
        None,
        ge=0,
        description="random seed of nonce words that replace the answers, so that only demonstrations tell them",
    )


@dataclass(frozen=True)
class _Question:
    """A question at `row` of its file."""

    row: int
    text: str
    answer: str
    image_id: int
    kind: str


class EasyVqaReader(FileReader):
    """Reads `data/{train,test}/{questions.json,images/N.png}` of the installed package easy_vqa, or `{train,test}/...` below
    `root`; the queries are the questions of test.

    A question's id is its row in the file. Each has one answer, which is repeated ten times as VQA accuracy expects. The
    question type is the kind of the answer. The questions on an image form a group, so that intervals are resampled by image.
    """

    name = "easy-vqa"
    tasks = ("vqa",)
    source = Source(
        "the Python package easy-vqa (`pip install easy-vqa`)",
        "MIT",
        (
            SourceFile("{train,test}/questions.json", "", "questions and answers"),
            SourceFile("{train,test}/images", "3 MB packed", "5,000 images of 64 x 64"),
        ),
    )

    options_model = EasyVqaOptions

    def __init__(self, options: EasyVqaOptions) -> None:
        self._kinds = options.kinds
        self._words = {} if options.lexicon is None else dataset_words(options.lexicon)

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader."""
        base = _base(root)
        for name, (part, _, offset) in SPLITS.items():
            questions = [q for q in _questions(base / part / "questions.json") if q.kind in self._kinds]
            yield PreparedSplit(name, len(questions), self._examples(questions, base / part / "images", offset))

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        base, remarks, files = _base(root), [], []
        for part, official, _ in SPLITS.values():
            file, folder = base / part / "questions.json", base / part / "images"
            questions = _questions(file)
            if not any(question.kind in self._kinds for question in questions):
                raise DataError(f"{file} has no questions of the kinds {', '.join(self._kinds)}", _AGAIN)
            names = [f"{i}.png" for i in dict.fromkeys(question.image_id for question in questions)]
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise DataError(
                    f"{file} names {counted(len(missing), 'image')} missing from {folder}: {few(missing)}", _AGAIN
                )
            check_decoding(folder, names, part, _AGAIN, verify, progress)
            remarks += unofficial(f"{part}/{file.name}", len(questions), "question", official)
            files.append(file)
        return ReadReport(tuple(files), tuple(remarks))

    def _examples(self, questions: list[_Question], folder: Path, offset: int) -> Iterator[Example]:
        for question in questions:
            label = self._words.get(question.answer, question.answer)
            yield Example(
                id=question.row,
                image=str(folder / f"{question.image_id}.png"),
                image_id=question.image_id + offset,
                text=question.text,
                label=label,
                references=(label,) * _ANSWERS,
                question=question.text,
                group=f"{folder.parent.name}-{question.image_id}",
                question_type=question.kind,
                answer_type=question.kind,
            )


def _base(root: Path | None) -> Path:
    """The folder of `train` and `test`. Raises DataError if there is none."""
    if root is None:
        package = importlib.util.find_spec("easy_vqa")
        if package is None or not package.submodule_search_locations:
            raise DataError("data set easy-vqa needs the package easy-vqa", "`pip install easy-vqa`")
        root = Path(next(iter(package.submodule_search_locations)))
    for base in (root, root / "data", root / "easy_vqa" / "data"):
        if (base / "train" / "questions.json").is_file():
            return base.absolute()
    raise DataError(
        f"no easy-VQA in {root}: there is no train/questions.json",
        "leave out --root to read the installed package easy-vqa",
    )


def _questions(file: Path) -> list[_Question]:
    """All questions of a split. Raises DataError that names the row that is not one."""
    try:
        rows = json.loads(read_whole(file))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}", _AGAIN) from error
    if not isinstance(rows, list):
        raise DataError(f"{file} is not a list of questions", _AGAIN)
    questions = []
    for row, value in enumerate(rows):
        match value:
            case [str(text), str(answer), int(image_id)] if text.strip() and (kind := kind_of(answer)) is not None:
                questions.append(_Question(row, " ".join(text.split()), answer, image_id, kind))
            case _:
                raise DataError(
                    f"{file}: row {row} is not a question, a known answer and an image id: {value!r}", _AGAIN
                )
    return questions
