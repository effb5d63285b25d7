"""Questions on images with ten answers each, in one file per split or in the two files of OpenFlamingo's evaluation."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from icltool.components.datasets.entries import listed, text_of, texts_of, whole
from icltool.components.datasets.official import counted, few, one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.components.datasets.vqa import most_frequent
from icltool.contracts import Example, Options, group_code
from icltool.errors import DataError

#: Our split name -> the name in files.
PARTS = {"train": "train", "validation": "val"}
_TEN = 10


class AnsweredOptions(Options):
    """Which answer is the label."""

    label: Literal["most-frequent", "first"] = Field(
        "most-frequent",
        description="label of an example: its most frequent answer, the earliest of several, or its first answer, as in "
        "OpenFlamingo's prompts",
    )


@dataclass(frozen=True, slots=True)
class Answered:
    """A question as files have it; `image` is the image's name, `answers` are as the annotators gave them."""

    id: int
    image: str
    question: str
    answers: tuple[str, ...]
    answer_type: str = ""


class AnsweredReader(PublishedReader):
    """Reads the official file of each split, or OpenFlamingo's `{part}_questions_vqa_format.json` and
    `{part}_annotations_vqa_format.json`; files and images are unpacked or in their zip archives.

    A subclass also names the `official_file` of a part, the `archives` that may hold it, the `image_folders` of a part and
    their `image_archives`. `official` are the numbers of questions by our split name.
    """

    tasks = ("vqa",)
    options_model = AnsweredOptions
    official_file: ClassVar[str]
    archives: ClassVar[tuple[str, ...]] = ()
    image_folders: ClassVar[Mapping[str, str]]
    image_archives: ClassVar[Mapping[str, tuple[str, ...]]]
    official: ClassVar[Mapping[str, int]]

    def __init__(self, options: AnsweredOptions) -> None:
        self.options = options

    @abc.abstractmethod
    def official_row(self, record: Mapping[str, Any], position: int) -> Answered:
        """The question of a record of the official file. Raises as `listed` expects."""

    def image_name(self, image: str) -> str:
        """The name of an image's file."""
        return image

    def demonstrates(self, label: str) -> bool:
        """Whether an example with this label belongs into the index set."""
        return True

    def aspects(self, answer_type: str) -> dict[str, str]:
        """See Example."""
        return {}

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        bases = self.bases(root)
        for name, part in PARTS.items():
            files = self._files(bases, part)
            folder = self.images(bases, [self.image_folders[part]], self.image_archives[part])
            rows = self.rows(files)
            usable = self.usable(name, rows)
            examples = [self._example(row, folder) for row in usable]
            remarks = tuple(self._remarks(files[-1], rows, usable))
            yield Part(name, files, folder, examples, len(rows), self.official[name], remarks)

    def _files(self, bases: Sequence[Path], part: str) -> tuple[Path, ...]:
        """The official file, or the two of OpenFlamingo. Raises DataError if one is missing, or for both layouts at once."""
        official = self.official_file.format(part=part)
        pair = [f"{part}_{kind}_vqa_format.json" for kind in ("questions", "annotations")]
        own, two = self.find(bases, official, self.archives), [self.find(bases, name) for name in pair]
        other = next((file for file in two if file is not None), None)
        if own is not None and other is not None:
            raise DataError(
                f"{bases[-1]} has {self.title} twice: {own.name} and {other.name}", "keep one of the two in the folder"
            )
        if own is None and other is None:
            return (self.file(bases, official, self.archives),)
        return (own,) if own is not None else tuple(self.file(bases, name) for name in pair)

    def rows(self, files: Sequence[Path]) -> list[Answered]:
        """All questions of a split, in the order of the file. Raises DataError, which names the faulty file and entry."""
        return self._official(files[0]) if len(files) == 1 else self._paired(*files)

    def usable(self, name: str, rows: Sequence[Answered]) -> list[Answered]:
        """Those that have an answer and, in the index set, may be demonstrations."""
        return [row for row in rows if (label := self._label(row)) and (name != "train" or self.demonstrates(label))]

    def _official(self, path: Path) -> list[Answered]:
        return listed(path, ("", "data"), self.official_row, "a question with answers", self.source.hint())

    def _paired(self, path: Path, answers_path: Path) -> list[Answered]:
        hint = self.source.hint()
        questions = listed(path, ("questions",), _asked, "a question", hint)
        answered = {row.id: row for row in listed(answers_path, ("annotations",), _answers, "a list of answers", hint)}
        missing = [row.id for row in questions if row.id not in answered]
        unknown = answered.keys() - {row.id for row in questions}
        if missing or unknown:
            lacking, other, ids = (answers_path, path, missing) if missing else (path, answers_path, sorted(unknown))
            raise DataError(
                f"{lacking} lacks {counted(len(ids), 'question')} of {other.name}: {few(ids)}",
                "take both files from the same release and split",
            )
        for row in questions:
            if row.image != answered[row.id].image:
                raise DataError(
                    f"{answers_path} gives question {row.id} the image {answered[row.id].image}, {path.name} {row.image}",
                    "take both files from the same release and split",
                )
        return [
            Answered(row.id, row.image, row.question, answered[row.id].answers, self.paired_type(answered[row.id]))
            for row in questions
        ]

    def paired_type(self, row: Answered) -> str:
        """The type of the answer that OpenFlamingo's files give."""
        return row.answer_type

    def _label(self, row: Answered) -> str:
        texts = [text for answer in row.answers if (text := one_line(answer))]
        return next(iter(texts), "") if self.options.label == "first" else most_frequent(texts)

    def _example(self, row: Answered, folder: Path) -> Example:
        question = one_line(row.question)
        return Example(
            id=row.id,
            image=str(folder / self.image_name(row.image)),
            image_id=group_code(row.image),
            text=question,
            label=self._label(row),
            references=row.answers,
            question=question,
            answer_type=row.answer_type,
            aspects=self.aspects(row.answer_type),
        )

    def _remarks(self, path: Path, rows: Sequence[Answered], usable: Sequence[Answered]) -> list[str]:
        remarks = []
        blank = sum(not self._label(row) for row in rows)
        if blank:
            remarks.append(f"{path.name}: {counted(blank, 'question')} without an answer left out")
        if left := len(rows) - blank - len(usable):
            remarks.append(f"{path.name}: {counted(left, 'question')} whose answer says that there is none left out")
        if unusual := sum(len(row.answers) != _TEN for row in usable):
            remarks.append(f"{path.name}: {counted(unusual, 'question')} with more or fewer than ten answers")
        return remarks


def _asked(record: Mapping[str, Any], _: int) -> Answered:
    return Answered(whole(record["question_id"]), text_of(record["image_id"]), text_of(record["question"]), ())


def _answers(record: Mapping[str, Any], _: int) -> Answered:
    kind = text_of(record.get("question_type", ""))
    return Answered(whole(record["question_id"]), text_of(record["image_id"]), "", texts_of(record["answers"]), kind)
