"""VQAv2, from its official files. One example per question, sorted by image id and question id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from icltool.contracts import Example, PreparedSplit, Progress, ReadReport
from icltool.datasets.coco2017 import check_decoding
from icltool.datasets.images import expect_images
from icltool.datasets.near_duplicates import FILE, read_groups
from icltool.datasets.official import (
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
from icltool.datasets.places import chosen_root, first_holding, folder_of
from icltool.errors import DataError

#: Our split name -> (part of the file names, questions in the official split).
SPLITS = {"train": ("train", 443_757), "validation": ("val", 214_354)}
_OTHER = {"train": "val", "val": "train"}
_IMAGES = ("train2014", "val2014")
_FILES = tuple(
    pattern.format(part)
    for part in ("train", "val")
    for pattern in ("v2_OpenEnded_mscoco_{}2014_questions.json", "v2_mscoco_{}2014_annotations.json")
)
_ARCHIVES = (
    "get v2_Questions_Train_mscoco.zip, v2_Questions_Val_mscoco.zip, v2_Annotations_Train_mscoco.zip and "
    "v2_Annotations_Val_mscoco.zip from visualqa.org and unpack them there"
)
_IMAGE_ARCHIVES = "get train2014.zip and val2014.zip from cocodataset.org and unpack them in mscoco/mscoco2014"
_TEN = 10


@dataclass(frozen=True)
class Places:
    """`questions`: the folder of the question and annotation files; `images`: the one of train2014 and val2014."""

    questions: Path
    images: Path


@dataclass(frozen=True)
class AnsweredSplit:
    """One split: answered questions in order, their answers by question id, and what was left out."""

    questions: list[Question]
    answers: dict[int, Answers]
    remarks: tuple[str, ...]


class VQAv2Reader:
    """Reads `vqav2/v2_{OpenEnded_mscoco,mscoco}_{train,val}2014_{questions,annotations}.json` and `mscoco2014` images.

    `root` may be the folder that holds `vqav2`, or that folder itself; without it, the environment variable
    VQAV2_PATH. Images are looked for in `mscoco/mscoco2014` and `mscoco2014` below `root` and beside it, then below
    COCO_PATH. The label is the most frequent of the ten answers, which are the references; the question is the
    retrieval text. An image's group comes from the optional file `near_duplicates.json` beside the question files.
    """

    name = "vqav2"
    tasks = ("vqa",)

    def check(self, root: Path | None, task: str, verify: bool) -> ReadReport:
        return self._check(root, verify, None)

    def verify(self, root: Path | None, task: str, progress: Progress) -> ReadReport:
        """`check` with every image opened, and progress shown."""
        return self._check(root, True, progress)

    def read(self, root: Path | None, task: str, workspace: Path, progress: Progress) -> Iterator[PreparedSplit]:
        """See DatasetReader. Each split is parsed when it is its turn."""
        places = self.find(root)
        for name, (part, _) in SPLITS.items():
            with progress.task(f"reading questions and answers of {part}2014", 1, "splits") as ticker:
                split = read_answered(places, part)
                ticker.advance()
            groups = read_groups(places.questions, part)
            yield PreparedSplit(
                name, len(split.questions), _examples(split, places.images / f"{part}2014", part, groups)
            )

    def find(self, root: Path | None) -> Places:
        """Where questions and images are. DataError when there are none."""
        start = chosen_root(root, ("VQAV2_PATH", "COCO_PATH"), self.name)
        questions = first_holding([start / "vqav2", start], _FILES)
        if questions is None:
            raise DataError(f"no VQAv2 in {start}: neither vqav2 nor the folder itself has {_FILES[0]}", _ARCHIVES)
        starts = [start, questions.parent, folder_of("COCO_PATH")]
        below = [s / name for s in starts if s is not None for name in ("mscoco/mscoco2014", "mscoco2014", ".")]
        images = first_holding(below, _IMAGES)
        if images is None:
            raise DataError(
                f"no COCO 2014 images for VQAv2: mscoco/mscoco2014 and mscoco2014 are neither in {start} nor beside it",
                f"set COCO_PATH, or {_IMAGE_ARCHIVES}",
            )
        return Places(questions, images)

    def _check(self, root: Path | None, verify: bool, progress: Progress | None) -> ReadReport:
        places = self.find(root)
        missing = [name for name in _FILES if not (places.questions / name).exists()]
        if missing:
            raise DataError(f"{places.questions} lacks {', '.join(missing)}", _ARCHIVES)
        missing = [name for name in _IMAGES if not (places.images / name).exists()]
        if missing:
            raise DataError(f"{places.images} lacks {', '.join(missing)}", _IMAGE_ARCHIVES)
        remarks: list[str] = []
        for part, official in SPLITS.values():
            split = read_answered(places, part)
            read_groups(places.questions, part)
            path, folder, other = _questions_file(places, part), places.images / f"{part}2014", _OTHER[part]
            ids = list(dict.fromkeys(question.image_id for question in split.questions))
            names = [image_name(part, i) for i in ids]
            expect_images(
                path,
                folder,
                names,
                places.images / f"{other}2014",
                [image_name(other, i) for i in ids],
                _IMAGE_ARCHIVES,
            )
            check_decoding(folder, names, _IMAGE_ARCHIVES, verify, progress)
            remarks += split.remarks
            if len(split.questions) != official:
                count = counted(len(split.questions), "answered question")
                remarks.append(f"{path.name} has {count}; the official split has {official:,}")
        files = [places.questions / name for name in _FILES]
        groups = places.questions / FILE
        return ReadReport((*files, groups) if groups.exists() else tuple(files), tuple(remarks))


def most_frequent(answers: Sequence[str], multiple_choice_answer: str) -> str:
    """The label: the most frequent answer; of several, `multiple_choice_answer` if among them, else the first given.

    Blank answers do not count; "" when all are blank.
    """
    counts = Counter(answer for answer in answers if answer.strip())
    if not counts:
        return ""
    most = max(counts.values())
    tied = [answer for answer, count in counts.items() if count == most]
    return multiple_choice_answer if multiple_choice_answer in tied else tied[0]


def image_name(part: str, image_id: int) -> str:
    """The file name of a COCO 2014 image."""
    return f"COCO_{part}2014_{image_id:012d}.jpg"


def read_answered(places: Places, part: str) -> AnsweredSplit:
    """Reads and pairs the questions and annotations of "train" or "val". DataError that names the file at fault."""
    path, answers_path = _questions_file(places, part), _answers_file(places, part)
    questions = _read(path, "questions", "questions", Question, part)
    answers = {a.question_id: a for a in _read(answers_path, "annotations", "answers", Answers, part)}
    twice = repeated([question.question_id for question in questions])
    if twice is not None:
        raise DataError(f"{path} lists question {twice} more than once", "get the file again from visualqa.org")
    _expect_pairs(path, answers_path, questions, answers)
    kept = [q for q in questions if any(answer.strip() for answer in answers[q.question_id].answers)]
    if not kept:
        raise DataError(f"{answers_path} has no answers", "get the file again from visualqa.org")
    kept.sort(key=lambda question: (question.image_id, question.question_id))
    remarks = []
    if len(kept) < len(questions):
        remarks.append(
            f"{answers_path.name}: {counted(len(questions) - len(kept), 'question')} without an answer left out"
        )
    unusual = sum(len(answers[question.question_id].answers) != _TEN for question in kept)
    if unusual:
        remarks.append(f"{answers_path.name}: {counted(unusual, 'question')} with more or fewer than ten answers")
    return AnsweredSplit(kept, answers, tuple(remarks))


def _read(path: Path, key: str, kind: str, entry: type[Entry], part: str) -> list[Entry]:
    get = f"put the official {path.name} from visualqa.org there"
    found = read_annotations(path, get)
    expect_kind(path, found, kind, get)
    held = found.get("data_subtype")
    if isinstance(held, str) and held != f"{part}2014":
        raise DataError(f"{path} is of the wrong split: it says {held}, not {part}2014", get)
    return entries(path, found, key, entry)


def _expect_pairs(path: Path, answers_path: Path, questions: list[Question], answers: dict[int, Answers]) -> None:
    get = "take both files from the same release and split"
    unanswered = [q.question_id for q in questions if q.question_id not in answers]
    if questions and len(unanswered) == len(questions):
        raise DataError(f"{answers_path} answers none of the questions of {path.name}", get)
    if unanswered:
        raise DataError(
            f"{answers_path} lacks {counted(len(unanswered), 'question')} of {path.name}: {few(unanswered)}", get
        )
    if len(answers) > len(questions):
        asked = {question.question_id for question in questions}
        unknown = [question_id for question_id in answers if question_id not in asked]
        raise DataError(
            f"{path} lacks {counted(len(unknown), 'question')} that {answers_path.name} answers: {few(unknown)}", get
        )
    for question in questions:
        image_id = answers[question.question_id].image_id
        if image_id != question.image_id:
            raise DataError(
                f"{answers_path} gives question {question.question_id} the image {image_id}, "
                f"{path.name} the image {question.image_id}",
                get,
            )


def _examples(split: AnsweredSplit, folder: Path, part: str, groups: dict[int, str]) -> Iterator[Example]:
    for question in split.questions:
        found = split.answers[question.question_id]
        text = one_line(question.question)
        yield Example(
            id=question.question_id,
            image=str(folder / image_name(part, question.image_id)),
            image_id=question.image_id,
            text=text,
            label=one_line(most_frequent(found.answers, found.multiple_choice_answer)),
            references=found.answers,
            question=text,
            group=groups.get(question.image_id, ""),
            question_type=found.question_type,
            answer_type=found.answer_type,
        )


def _questions_file(places: Places, part: str) -> Path:
    return places.questions / f"v2_OpenEnded_mscoco_{part}2014_questions.json"


def _answers_file(places: Places, part: str) -> Path:
    return places.questions / f"v2_mscoco_{part}2014_annotations.json"
