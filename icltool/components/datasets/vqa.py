"""Questions and answers on COCO 2014 images, from official files. One example per question, by image id and question id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from icltool.components.datasets.coco2014_images import (
    IMAGE_ARCHIVES,
    OTHER_PART,
    PARTS,
    Coco2014Images,
    find_images,
    image_name,
)
from icltool.components.datasets.images import check_decoding, expect_images
from icltool.components.datasets.near_duplicates import groups_file, read_groups
from icltool.components.datasets.official import (
    Answers,
    Entry,
    Question,
    counted,
    entries,
    expect_kind,
    few,
    one_line,
    read_annotations,
    repeated,
)
from icltool.components.datasets.places import chosen_root, find_file, first_holding, on_disk, there
from icltool.components.datasets.reader import FileReader, unofficial
from icltool.contracts import Example, PreparedSplit, Progress, ReadReport
from icltool.errors import DataError

_TEN = 10


@dataclass(frozen=True)
class Places:
    """Question and annotation files by part ("train", "val"), and the images."""

    questions: Mapping[str, Path]
    answers: Mapping[str, Path]
    images: Coco2014Images


@dataclass(frozen=True)
class AnsweredSplit:
    """One split: answered questions in order, their answers by question id, and remarks on what was left out."""

    questions: list[Question]
    answers: dict[int, Answers]
    remarks: tuple[str, ...]


class VqaReader(FileReader):
    """Reads question and annotation files, and the images of COCO 2014.

    A subclass defines its file names: `folder` holds them; `questions` and `answers` are patterns of their names, `archives`
    of the names of their zip archives, with {part} for train and val and {Part} for Train and Val. `title` is the data
    set's name in messages, `site` the source of the files, `official` the number of questions by our split name.

    `root` may be the folder that holds the data set's folder, or that folder itself; without it, one of the environment
    `variables`. Images are searched for in `mscoco/mscoco2014`, `mscoco2014`, `images` and the like below `root` and
    beside it, then below COCO_PATH. If files are not unpacked, the official zip archives are read, in those folders or
    directly below them. The label is the most frequent answer (see `most_frequent`), all answers are the references, the
    question is the example's text. An image's group comes from `near_duplicates.json` beside the question files.
    """

    image_namespace = "coco"
    name: str
    tasks = ("vqa",)
    title: ClassVar[str]
    site: ClassVar[str]
    folder: ClassVar[str]
    variables: ClassVar[tuple[str, ...]]
    questions: ClassVar[str]
    answers: ClassVar[str]
    archives: ClassVar[tuple[str, str]]
    official: ClassVar[Mapping[str, int]]

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader. Splits are parsed one after another."""
        places = self.find(root)
        for name, part in PARTS.items():
            with progress.task(f"reading questions and answers of {part}2014", 1, "splits") as ticker:
                split = self.split(places, name)
                ticker.advance()
            groups = read_groups(places.questions[part], name)
            folder = places.images.folders[part]
            yield PreparedSplit(name, len(split.questions), _examples(split, folder, part, groups))

    def split(self, places: Places, name: str) -> AnsweredSplit:
        """The questions and answers of "train" or "validation". Raises DataError, which names the faulty file."""
        return read_answered(places, PARTS[name], self.site)

    def find(self, root: Path | None) -> Places:
        """The paths of questions and images. Raises DataError if one is missing."""
        start = chosen_root(root, (*self.variables, "COCO_PATH"), self.name)
        names = [p.format(part=part) for part in PARTS.values() for p in (self.questions, self.answers)]
        archives = self._archives(*PARTS.values())
        hint = f"get {', '.join(archives)} from {self.site} and put them there; there is no need to unpack them"
        base = first_holding([start / self.folder, start], names, archives)
        if base is None:
            raise DataError(
                f"no {self.title} in {start}: neither {self.folder} nor the folder itself has {names[0]} or its zip archive",
                hint,
            )
        questions, answers = (
            {part: find_file(base, pattern.format(part=part), self._archives(part)) for part in PARTS.values()}
            for pattern in (self.questions, self.answers)
        )
        paths = [by_part[part] for part in PARTS.values() for by_part in (questions, answers)]
        missing = [name for name, path in zip(names, paths, strict=True) if path is None]
        if missing:
            raise DataError(f"{base} lacks {', '.join(missing)}", hint)
        return Places(there(questions), there(answers), find_images(start, base, self.title))

    def _archives(self, *parts: str) -> list[str]:
        return [pattern.format(part=part, Part=part.title()) for pattern in self.archives for part in parts]

    def inputs(self) -> tuple[Path, ...]:
        """Further files that determine the content."""
        return ()

    def look(self, root: Path | None, task: str, verify: bool, progress: Progress | None) -> ReadReport:
        places = self.find(root)
        remarks: list[str] = []
        for name, part in PARTS.items():
            split = self.split(places, name)
            read_groups(places.questions[part], name)
            path, folder, other = places.questions[part], places.images.folders[part], OTHER_PART[part]
            ids = list(dict.fromkeys(question.image_id for question in split.questions))
            names, other_names = ([image_name(p, i) for i in ids] for p in (part, other))
            expect_images(path, folder, names, places.images.folders[other], other_names, IMAGE_ARCHIVES)
            check_decoding(folder, names, f"{part}2014", IMAGE_ARCHIVES, verify, progress)
            remarks += split.remarks
            remarks += self.counts(name, path, len(split.questions))
        paths = [by_part[part] for part in PARTS.values() for by_part in (places.questions, places.answers)]
        files = on_disk([*paths, *groups_file(*places.questions.values())])
        return ReadReport((*files, *self.inputs(), *places.images.files), tuple(remarks))

    def counts(self, name: str, path: Path, count: int) -> list[str]:
        """A remark if a split does not have the official number of questions."""
        return unofficial(path.name, count, "answered question", self.official[name])


def most_frequent(answers: Sequence[str], multiple_choice_answer: str = "") -> str:
    """The label: the most frequent answer; in a tie `multiple_choice_answer` if it is among them, else the first.

    Blank answers do not count; "" when all are blank.
    """
    counts = Counter(answer for answer in answers if answer.strip())
    if not counts:
        return ""
    most = max(counts.values())
    tied = [answer for answer, count in counts.items() if count == most]
    return multiple_choice_answer if multiple_choice_answer in tied else tied[0]


def read_answered(places: Places, part: str, site: str) -> AnsweredSplit:
    """Reads and pairs the questions and annotations of "train" or "val". Raises DataError, which names the faulty file."""
    path, answers_path = places.questions[part], places.answers[part]
    again = f"get the file again from {site}"
    questions = _read(path, "questions", "questions", Question, part, site)
    answers = {a.question_id: a for a in _read(answers_path, "annotations", "answers", Answers, part, site)}
    twice = repeated([question.question_id for question in questions])
    if twice is not None:
        raise DataError(f"{path} lists question {twice} more than once", again)
    _expect_pairs(path, answers_path, questions, answers)
    answered = [q for q in questions if any(answer.strip() for answer in answers[q.question_id].answers)]
    if not answered:
        raise DataError(f"{answers_path} has no answers", again)
    answered.sort(key=lambda question: (question.image_id, question.question_id))
    remarks = []
    if len(answered) < len(questions):
        remarks.append(
            f"{answers_path.name}: {counted(len(questions) - len(answered), 'question')} without an answer left out"
        )
    unusual = sum(len(answers[question.question_id].answers) != _TEN for question in answered)
    if unusual:
        remarks.append(f"{answers_path.name}: {counted(unusual, 'question')} with more or fewer than ten answers")
    return AnsweredSplit(answered, answers, tuple(remarks))


def _read(path: Path, key: str, kind: str, entry: type[Entry], part: str, site: str) -> list[Entry]:
    hint = f"put the official {path.name} from {site} there"
    content = read_annotations(path, hint)
    expect_kind(path, content, kind, hint)
    subtype = content.get("data_subtype")
    if isinstance(subtype, str) and subtype != f"{part}2014":
        raise DataError(f"{path} belongs to the wrong split: {subtype}, not {part}2014", hint)
    return entries(path, content, key, entry)


def _expect_pairs(path: Path, answers_path: Path, questions: list[Question], answers: dict[int, Answers]) -> None:
    hint = "take both files from the same release and split"
    unanswered = [q.question_id for q in questions if q.question_id not in answers]
    if questions and len(unanswered) == len(questions):
        raise DataError(f"{answers_path} answers none of the questions of {path.name}", hint)
    if unanswered:
        raise DataError(
            f"{answers_path} lacks {counted(len(unanswered), 'question')} of {path.name}: {few(unanswered)}", hint
        )
    if len(answers) > len(questions):
        known_ids = {question.question_id for question in questions}
        unknown = [question_id for question_id in answers if question_id not in known_ids]
        raise DataError(
            f"{path} lacks {counted(len(unknown), 'question')} that {answers_path.name} answers: {few(unknown)}", hint
        )
    for question in questions:
        image_id = answers[question.question_id].image_id
        if image_id != question.image_id:
            raise DataError(
                f"{answers_path} gives question {question.question_id} the image {image_id}, "
                f"{path.name} the image {question.image_id}",
                hint,
            )


def _examples(split: AnsweredSplit, folder: Path, part: str, groups: dict[int, str]) -> Iterator[Example]:
    for question in split.questions:
        record = split.answers[question.question_id]
        text = one_line(question.question)
        yield Example(
            id=question.question_id,
            image=str(folder / image_name(part, question.image_id)),
            image_id=question.image_id,
            text=text,
            label=one_line(most_frequent(record.answers, record.multiple_choice_answer)),
            references=record.answers,
            question=text,
            group=groups.get(question.image_id, ""),
            question_type=record.question_type,
            answer_type=record.answer_type,
            raw_references=record.raw_answers,
        )
