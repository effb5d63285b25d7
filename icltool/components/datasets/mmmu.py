"""MMMU: questions of thirty college subjects with one to seven images, most of them with choices."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from icltool.components.datasets.entries import expect_once
from icltool.components.datasets.held_images import HeldImages
from icltool.components.datasets.hub_splits import HubSplit, open_configurations, parquet_split
from icltool.components.datasets.labelled_rows import whole_or_code
from icltool.components.datasets.official import counted, few, one_line
from icltool.components.datasets.published import Part, PublishedReader
from icltool.components.datasets.reader import unofficial
from icltool.contracts import (
    IMAGE_MARKER,
    Example,
    Options,
    PreparedSplit,
    Progress,
    ReadReport,
    Source,
    SourceFile,
    holds_images,
)
from icltool.errors import ConfigError, DataError

#: Our split name -> (the name in files, number of questions of both kinds).
SPLITS: Mapping[str, tuple[str, int]] = {"train": ("dev", 150), "validation": ("validation", 900)}
_COLUMNS = ("id", "question", "options", "answer", "question_type", *(f"image_{n}" for n in range(1, 8)))
_PLACE = re.compile(r"<image (\d)>")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

#: Discipline by subject (Yue et al. 2024, MMMU, figure 3).
_DISCIPLINES: Mapping[str, str] = {
    subject: discipline
    for discipline, subjects in {
        "Art & Design": "Art, Art_Theory, Design, Music",
        "Business": "Accounting, Economics, Finance, Manage, Marketing",
        "Science": "Biology, Chemistry, Geography, Math, Physics",
        "Health & Medicine": "Basic_Medical_Science, Clinical_Medicine, Diagnostics_and_Laboratory_Medicine, Pharmacy, "
        "Public_Health",
        "Humanities & Social Science": "History, Literature, Sociology, Psychology",
        "Tech & Engineering": "Agriculture, Architecture_and_Engineering, Computer_Science, Electronics, "
        "Energy_and_Power, Materials, Mechanical_Engineering",
    }.items()
    for subject in subjects.split(", ")
}


class MmmuOptions(Options):
    """Where the questions are, if not in a folder."""

    path: str | None = Field(
        None, description="OWNER/NAME on the Hugging Face hub, all of whose configurations are read: MMMU/MMMU"
    )
    revision: str | None = Field(None, description="revision of the data set on the hub: a branch, tag or commit")


class MmmuReader(PublishedReader):
    """Reads the parquet files of MMMU in --root and the folders below it (`SUBJECT/dev-00000-of-00001.parquet`), or the hub's
    (`path=MMMU/MMMU`); without both, those below the environment variable MMMU_PATH.

    The index set is dev, the queries are validation; test has no answers. Questions with choices are for task
    multiple-choice, open ones for task vqa. An image stands where its question or choices name it; images that no text names
    stand before the question. Questions with images among the choices need `--rank-by letter` or `generate`. Figures are
    broken down by subject and discipline.
    """

    name = "mmmu"
    tasks = ("multiple-choice", "vqa")
    metrics: ClassVar[Mapping[str, tuple[str, ...]]] = {"vqa": ("mmmu-open",)}
    options_model = MmmuOptions
    source = Source(
        "huggingface.co/datasets/MMMU/MMMU",
        "Apache 2.0; of the images, the terms of their sources",
        (SourceFile("{dev,validation}-*.parquet", "", "of each of 30 subjects"),),
    )
    title = "MMMU"
    variables = ("MMMU_PATH",)

    def __init__(self, options: MmmuOptions) -> None:
        self.options = options

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader. The images are written below the workspace."""
        images = HeldImages(workspace / "datasets" / self.name / "source" / "images", None)
        for part in self._parts(root, task, images):
            yield PreparedSplit(part.name, len(part.examples), iter(part.examples))

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        if verify:
            for _ in self._parts(root, task, HeldImages(None, None), decode=True):
                pass
        return super().look(root, task, False, progress)

    def parts(self, root: Path | None, task: str) -> Iterator[Part]:
        """See PublishedReader."""
        return self._parts(root, task, HeldImages(None, None))

    def _parts(self, root: Path | None, task: str, images: HeldImages, decode: bool = False) -> Iterator[Part]:
        ranked = task == "multiple-choice"
        for (name, (prefix, official)), splits in zip(SPLITS.items(), self._splits(root), strict=True):
            subjects = set[str]()
            examples, ids = [], []
            for split in splits:
                if missing := [column for column in _COLUMNS if column not in split.columns]:
                    raise DataError(f"{split.title} has no column {missing[0]!r}", self.source.hint())
                for row in split.rows(_COLUMNS):
                    subject = self._subject(str(row["id"]), prefix, split.title)
                    ids.append(str(row["id"]))
                    subjects.add(subject)
                    if (row["question_type"] == "multiple-choice") == ranked:
                        examples.append(self._example(row, split.title, subject, ranked, images, decode))
            expect_once(f"{self.title} {prefix}", ids, self.source.hint())
            count = sum(split.count for split in splits)
            remarks = unofficial(f"{self.title} {prefix}", count, "question", official)
            if lacking := sorted(_DISCIPLINES.keys() - subjects):
                remarks.append(f"{self.title} {prefix} has no questions of {few(lacking)}")
            if pictured := sum(map(holds_images, examples)):
                remarks.append(
                    f"{prefix}: {counted(pictured, 'question')} with images among the choices: evaluate with --rank-by letter"
                )
            files = tuple(dict.fromkeys(file for split in splits for file in split.files))
            yield Part(name, files, None, examples, count, None, tuple(remarks))

    def _splits(self, root: Path | None) -> list[list[HubSplit]]:
        """What holds each of SPLITS. Raises DataError for one that is missing."""
        names = [prefix for prefix, _ in SPLITS.values()]
        path = self.options.path
        if path is not None:
            if root is not None:
                raise ConfigError(
                    f"data set {self.name!r}: --root and path={path} exclude each other", "leave one of them out"
                )
            opened = open_configurations(path, self.options.revision, names)
            if missing := [name for name in names if not any(name in splits for splits in opened)]:
                raise DataError(f"data set {path} has no split {missing[0]!r}", self.source.hint())
            return [[splits[name] for splits in opened if name in splits] for name in names]
        [base] = self.bases(root)
        splits = []
        for name in names:
            files = tuple(sorted(base.rglob(f"{name}-*.parquet")))
            if not files:
                raise DataError(f"no MMMU in {base}: no file {name}-*.parquet in it or below", self.source.hint())
            splits.append([parquet_split(base, name, files)])
        return splits

    def _subject(self, identifier: str, prefix: str, title: str) -> str:
        """The subject in the id of a question: Accounting in dev_Accounting_1."""
        named, _, rest = identifier.partition("_")
        subject, _, number = rest.rpartition("_")
        if named != prefix or not subject or not number.isdecimal():
            raise DataError(
                f"{title}, question {identifier}: ids of {prefix} are like {prefix}_Accounting_1", self.source.hint()
            )
        return subject

    def _example(
        self, row: Mapping[str, object], title: str, subject: str, ranked: bool, images: HeldImages, decode: bool
    ) -> Example:
        identifier = str(row["id"])
        where = f"{title}, question {identifier}"
        try:
            question, choices, order = _texts(row)
            label, references = _answer(str(row["answer"]), choices, ranked)
        except (ValueError, SyntaxError, TypeError) as error:
            raise DataError(f"{where}: {one_line(str(error))}", self.source.hint()) from error
        placed = [images.place(row[f"image_{number}"], where, decode) for number in order]
        if not placed:
            raise DataError(f"{where} has no image", self.source.hint())
        (first, first_id), *more = placed
        return Example(
            id=whole_or_code(identifier),
            image=first,
            image_id=first_id,
            text=one_line(question.replace(IMAGE_MARKER, " ")) or identifier,
            label=label,
            references=references,
            question=question,
            choices=choices,
            more_images=tuple(path for path, _ in more),
            more_image_ids=tuple(number for _, number in more),
            images_in_text=True,
            aspects={"subject": subject.replace("_", " "), "discipline": _DISCIPLINES.get(subject, "other")},
        )


def _texts(row: Mapping[str, object]) -> tuple[str, tuple[str, ...], list[int]]:
    """(question, choices, the numbers of the images in the order of their places). Raises ValueError for choices that are no
    list, or a place without an image."""
    question = one_line(_escaped(str(row["question"])))
    listed = ast.literal_eval(str(row["options"] or "[]"))
    if not isinstance(listed, list):
        raise ValueError(f"its options are not a list: {listed!r:.60}")
    choices = [one_line(_escaped(str(choice))) for choice in listed]
    order = [int(number) for text in (question, *choices) for number in _PLACE.findall(text)]
    present = [number for number in range(1, 8) if row[f"image_{number}"] is not None]
    if lacking := [number for number in order if number not in present]:
        raise ValueError(f"it has a place for image {lacking[0]}, which it does not have")
    unnamed = [number for number in present if number not in order]
    question = " ".join([*[IMAGE_MARKER] * len(unnamed), question])
    marked = [_PLACE.sub(IMAGE_MARKER, text) for text in (question, *choices)]
    return marked[0], tuple(marked[1:]), unnamed + order


def _escaped(text: str) -> str:
    return text.replace(IMAGE_MARKER, "< image>")


def _answer(answer: str, choices: Sequence[str], ranked: bool) -> tuple[str, tuple[str, ...]]:
    """(label, references): of a question with choices the one of its letter, or the letter if that is an image; of an open
    question its answer, or a list of several."""
    if ranked:
        place = _LETTERS.find(answer)
        if len(answer) != 1 or not 0 <= place < len(choices):
            raise ValueError(f"its answer is {answer!r}, and it has {len(choices)} choices")
        label = answer if IMAGE_MARKER in choices[place] else choices[place]  # see choice_names
        return label, (label,)
    texts = tuple(map(one_line, _several(answer)))
    if not all(texts):
        raise ValueError("it has no answer")
    return texts[0], texts


def _several(answer: str) -> list[str]:
    """The answers in the text of a list of texts or numbers; else the text alone, which may be an interval, too."""
    try:
        value = ast.literal_eval(answer) if answer.startswith("[") else None
    except (ValueError, SyntaxError):
        value = None
    if isinstance(value, list) and value and all(isinstance(one, str | int | float) for one in value):
        return list(map(str, value))
    return [answer]
