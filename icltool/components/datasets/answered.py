"""Questions on images with ten answers each, in one file per split or in the two files of OpenFlamingo's evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from icltool.components.datasets.entries import listed, text_of, texts_of, whole
from icltool.components.datasets.images import check_decoding, expect_images
from icltool.components.datasets.official import counted, few, one_line, repeated
from icltool.components.datasets.places import chosen_root, find_file, find_folder, on_disk
from icltool.components.datasets.reader import FileReader, unofficial
from icltool.contracts import Example, Options, PreparedSplit, Progress, ReadReport, Source, group_code
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


@dataclass(frozen=True)
class Places:
    """The files of each split, one or OpenFlamingo's two, and the folders of images, by our split name."""

    files: Mapping[str, tuple[Path, ...]]
    images: Mapping[str, Path]


class AnsweredReader(FileReader):
    """Reads the official file of each split, or OpenFlamingo's `{part}_questions_vqa_format.json` and
    `{part}_annotations_vqa_format.json`; files and images are unpacked or in their zip archives.

    A subclass names its files: `title` in messages, `variables` of the environment, `folders` below the root that may hold
    the files ("" for the root), `official_file` of a part, the `archives` that may hold it, `image_folders` of a part, and
    `image_archives`. `official` are the numbers of questions by our split name.
    """

    tasks = ("vqa",)
    options_model = AnsweredOptions
    name: str
    source: Source
    title: ClassVar[str]
    variables: ClassVar[tuple[str, ...]]
    folders: ClassVar[tuple[str, ...]]
    official_file: ClassVar[str]
    archives: ClassVar[tuple[str, ...]] = ()
    image_folders: ClassVar[Mapping[str, str]]
    image_archives: ClassVar[Mapping[str, tuple[str, ...]]]
    official: ClassVar[Mapping[str, int]]

    def __init__(self, options: AnsweredOptions) -> None:
        self.options = options

    def official_row(self, record: Mapping[str, Any], position: int) -> Answered:
        """The question of a record of the official file. Raises KeyError or TypeError for a record of another form."""
        raise NotImplementedError

    def image_name(self, image: str) -> str:
        """The name of an image's file."""
        return image

    def image_code(self, image: str) -> int:
        """The identity of an image."""
        return group_code(image)

    def demonstrates(self, label: str) -> bool:
        """Whether an example with this label belongs into the index set."""
        return True

    def aspects(self, answer_type: str) -> dict[str, str]:
        """See Example."""
        return {}

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader. Splits are parsed one after another."""
        places = self.find(root)
        for name in PARTS:
            rows = self.kept(name, self.rows(places.files[name]))
            yield PreparedSplit(name, len(rows), self._examples(rows, places.images[name]))

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        places = self.find(root)
        remarks: list[str] = []
        hint = self.source.hint()
        for name, part in PARTS.items():
            files, folder = places.files[name], places.images[name]
            rows = self.rows(files)
            kept = self.kept(name, rows)
            if not kept:
                raise DataError(f"{files[-1]} has no answers", hint)
            names = list(dict.fromkeys(self.image_name(row.image) for row in kept))
            other = next(images for split, images in places.images.items() if split != name)
            expect_images(files[0], folder, names, other, names, hint)
            check_decoding(folder, names, part, hint, verify, progress)
            remarks += self._remarks(name, files[-1], rows, kept)
        read = [file for files in places.files.values() for file in files]
        return ReadReport(on_disk([*read, *places.images.values()]), tuple(remarks))

    def find(self, root: Path | None) -> Places:
        """The files. Raises DataError if one is missing, or if there are both layouts."""
        start = chosen_root(root, self.variables, self.name)
        bases = [start / folder for folder in self.folders]
        files = {name: self._files(start, bases, part) for name, part in PARTS.items()}
        images = {}
        for name, part in PARTS.items():
            folder, archives = self.image_folders[part], self.image_archives[part]
            found = next((at for base in bases if (at := find_folder(base, folder, archives)) is not None), None)
            if found is None:
                raise DataError(f"no images of {self.title} in {start}: folder {folder} is missing", self.source.hint())
            images[name] = found
        return Places(files, images)

    def _files(self, start: Path, bases: Sequence[Path], part: str) -> tuple[Path, ...]:
        official = self.official_file.format(part=part)
        pair = [f"{part}_{kind}_vqa_format.json" for kind in ("questions", "annotations")]
        own = next((at for base in bases if (at := find_file(base, official, self.archives)) is not None), None)
        two = [next((base / name for base in bases if (base / name).is_file()), None) for name in pair]
        if own is not None and any(two):
            raise DataError(
                f"{start} has {self.title} twice: {own.name} and {next(f for f in two if f).name}",
                "keep one of the two in the folder",
            )
        if own is not None:
            return (own,)
        there = tuple(file for file in two if file is not None)
        if len(there) < len(two):
            lacking = official if not there else next(name for name, at in zip(pair, two, strict=True) if at is None)
            raise DataError(f"no {self.title} in {start}: {lacking} is missing", self.source.hint())
        return there

    def rows(self, files: Sequence[Path]) -> list[Answered]:
        """All questions of a split, in the order of the file. Raises DataError, which names the faulty file and entry."""
        rows = self._official(files[0]) if len(files) == 1 else self._paired(*files)
        if (twice := repeated([row.id for row in rows])) is not None:
            raise DataError(f"{files[0]} lists question {twice} more than once", self.source.hint())
        return rows

    def kept(self, name: str, rows: Sequence[Answered]) -> list[Answered]:
        """Those that have an answer and, in the index set, may be demonstrations."""
        return [row for row in rows if (label := self._label(row)) and (name != "train" or self.demonstrates(label))]

    def _official(self, path: Path) -> list[Answered]:
        return listed(path, ("", "data"), self.official_row, "a question with answers", self.source.hint())

    def _paired(self, path: Path, answers_path: Path) -> list[Answered]:
        hint = self.source.hint()
        asked = listed(path, ("questions",), _asked, "a question", hint)
        answered = {row.id: row for row in listed(answers_path, ("annotations",), _answers, "a list of answers", hint)}
        missing = [row.id for row in asked if row.id not in answered]
        unknown = answered.keys() - {row.id for row in asked}
        if missing or unknown:
            lacking, other, ids = (answers_path, path, missing) if missing else (path, answers_path, sorted(unknown))
            raise DataError(
                f"{lacking} lacks {counted(len(ids), 'question')} of {other.name}: {few(ids)}",
                "take both files from the same release and split",
            )
        for row in asked:
            if row.image != answered[row.id].image:
                raise DataError(
                    f"{answers_path} gives question {row.id} the image {answered[row.id].image}, {path.name} {row.image}",
                    "take both files from the same release and split",
                )
        return [
            Answered(row.id, row.image, row.question, answered[row.id].answers, self.paired_type(answered[row.id]))
            for row in asked
        ]

    def paired_type(self, row: Answered) -> str:
        """The type of the answer that OpenFlamingo's files give."""
        return row.answer_type

    def _label(self, row: Answered) -> str:
        texts = [text for answer in row.answers if (text := one_line(answer))]
        if not texts:
            return ""
        return texts[0] if self.options.label == "first" else Counter(texts).most_common(1)[0][0]

    def _examples(self, rows: Sequence[Answered], folder: Path) -> Iterator[Example]:
        for row in rows:
            question = one_line(row.question)
            yield Example(
                id=row.id,
                image=str(folder / self.image_name(row.image)),
                image_id=self.image_code(row.image),
                text=question,
                label=self._label(row),
                references=row.answers,
                question=question,
                answer_type=row.answer_type,
                aspects=self.aspects(row.answer_type),
            )

    def _remarks(self, name: str, path: Path, rows: Sequence[Answered], kept: Sequence[Answered]) -> list[str]:
        remarks = unofficial(path.name, len(rows), "question", self.official[name])
        blank = sum(not self._label(row) for row in rows)
        if blank:
            remarks.append(f"{path.name}: {counted(blank, 'question')} without an answer left out")
        if left := len(rows) - blank - len(kept):
            remarks.append(f"{path.name}: {counted(left, 'question')} whose answer says that there is none left out")
        if unusual := sum(len(row.answers) != _TEN for row in kept):
            remarks.append(f"{path.name}: {counted(unusual, 'question')} with more or fewer than ten answers")
        return remarks


def _asked(record: Mapping[str, Any], _: int) -> Answered:
    return Answered(whole(record["question_id"]), text_of(record["image_id"]), text_of(record["question"]), ())


def _answers(record: Mapping[str, Any], _: int) -> Answered:
    kind = text_of(record.get("question_type", ""))
    return Answered(whole(record["question_id"]), text_of(record["image_id"]), "", texts_of(record["answers"]), kind)
