"""Annotation files in the formats of COCO and VQA: reading them, distinguishing their kinds, and finding faults.

While a file is read, its records become small tuples at once, so that a file of 400 MB does not become 4 GB of dicts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from icltool.components.datasets.json_stream import read_json
from icltool.errors import DataError

_LARGEST = 2**63 - 1


class Image(NamedTuple):
    """An entry of "images"."""

    id: int
    file_name: str


class Caption(NamedTuple):
    """An entry of "annotations" in a captions file."""

    id: int
    image_id: int
    caption: str


class Question(NamedTuple):
    """An entry of "questions"."""

    question_id: int
    image_id: int
    question: str


class Answers(NamedTuple):
    """An entry of "annotations" in a VQA annotations file.

    `raw_answers` are the fields "raw_answer", one for each answer, if all answers have one (OK-VQA); else ().
    """

    question_id: int
    image_id: int
    answers: tuple[str, ...]
    multiple_choice_answer: str
    question_type: str
    answer_type: str
    raw_answers: tuple[str, ...] = ()


Entry = TypeVar("Entry", Image, Caption, Question, Answers)

#: What COCO's other annotation files hold, by a key of their entries.
_OTHER_KINDS = {"keypoints": "person keypoints", "segments_info": "panoptic segments", "bbox": "instances"}
#: A field that entries may lack; it has been checked already.
_OPTIONAL = "raw_answers"
#: The fields that identify an entry.
_DECIDING: dict[type[object], tuple[str, ...]] = {
    Image: ("id", "file_name"),
    Caption: ("image_id", "caption"),
    Question: ("question_id", "question"),
    Answers: ("question_id", "answers"),
}
_NAMES = {Image: "an image", Caption: "a caption", Question: "a question", Answers: "a list of answers"}


def read_annotations(path: Path, hint: str) -> dict[str, object]:
    """The object in an annotation file, its known entries as Image, Caption, Question and Answers.

    `get` is the hint: where the file comes from. Raises DataError when the file is missing, unreadable, not well-formed
    (with line and column) or not an object.
    """
    content = read_json(path, hint, _entry)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no annotations: expected an object with lists", hint)
    return content


def _entry(key: str, record: object) -> object:
    """The converted entry of a list; an entry of unknown kind is returned unchanged.

    Values are not checked here; `entries` checks them.
    """
    if not isinstance(record, dict):
        return record
    if "answers" in record and "question_id" in record:
        named = (_interned(record.get(key, "")) for key in ("multiple_choice_answer", "question_type", "answer_type"))
        texts, raw = _texts(record["answers"]), _raw_texts(record["answers"])
        return Answers._make((record["question_id"], record.get("image_id"), texts, *named, raw))
    if "question" in record and "question_id" in record:
        return Question._make((record["question_id"], record.get("image_id"), record["question"]))
    if "caption" in record and "image_id" in record:  # other makers' files number no captions
        return Caption(record.get("id", 0), record["image_id"], record["caption"])
    if "file_name" in record and "id" in record:
        return Image(record["id"], record["file_name"])
    return record


def _texts(answers: object) -> object:
    """The field "answer" of each; an answer that is not a record is returned unchanged, for `entries` to refuse."""
    if not isinstance(answers, list):
        return answers
    return tuple(_interned(answer.get("answer")) if isinstance(answer, dict) else answer for answer in answers)


def _raw_texts(answers: object) -> tuple[str, ...]:
    """The field "raw_answer" of each; () unless all have one."""
    texts: list[str] = []
    for answer in answers if isinstance(answers, list) else ():
        text = answer.get("raw_answer") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            return ()
        texts.append(sys.intern(text))
    return tuple(texts)


def _interned(text: object) -> object:
    return sys.intern(text) if isinstance(text, str) else text


def expect_kind(path: Path, content: dict[str, object], kind: str, hint: str) -> None:
    """Raises DataError if an annotation file is not of `kind`: "captions", "questions" or "answers"."""
    actual = kind_of(content)
    if actual != kind:
        message = f"{path} holds {actual}, not {kind}" if actual else f"{path} holds no {kind}"
        raise DataError(message, hint)


def kind_of(content: dict[str, object]) -> str:
    """The kind of an annotation file, by its first entry; "" for an unknown kind."""
    if isinstance(content.get("questions"), list):
        return "questions"
    annotations = content.get("annotations")
    images = content.get("images")
    if not isinstance(annotations, list):
        if isinstance(images, list) and images and isinstance(images[0], dict) and "sentences" in images[0]:
            return "captions in Karpathy's format"
        return "only a list of images" if isinstance(images, list) else ""
    if not annotations:
        return ""
    first = annotations[0]
    if isinstance(first, Caption):
        return "captions"
    if isinstance(first, Answers):
        return "answers"
    if isinstance(first, dict):
        named = [kind for key, kind in _OTHER_KINDS.items() if key in first]
        if named:
            return named[0]
    return "captions" if isinstance(images, list) else ""


def entries(path: Path, content: dict[str, object], key: str, kind: type[Entry]) -> list[Entry]:
    """The list under `key`, each entry checked: ids are integers from 0 to 2^63 - 1, texts are texts.

    Raises DataError, which names the first faulty entry.
    """
    listed = content.get(key)
    if not isinstance(listed, list):
        raise DataError(f"{path} has no list {key!r}", "the file is not the official one; get it again")
    needed = ", ".join(name for name in kind._fields if name != _OPTIONAL)
    for position, entry in enumerate(listed):
        fault = _missing(entry, kind) if not isinstance(entry, kind) else _fault(entry)
        if fault:
            raise DataError(
                f"{path}: entry {position} of {key!r} is not {_NAMES[kind]}: {fault}",
                f"it needs {needed}; the file is damaged or not the official one",
            )
    return listed


def _missing(entry: object, kind: type[object]) -> str:
    """The fields that an entry lacks."""
    if not isinstance(entry, dict):
        return f"it is {_short(entry)}"
    lacking = [name for name in _DECIDING[kind] if name not in entry]
    return f"it has no {' and no '.join(lacking)}" if lacking else "its fields are of the wrong type"


def _fault(entry: Image | Caption | Question | Answers) -> str:
    for name, value in zip(entry._fields, entry, strict=True):
        if name == _OPTIONAL:
            continue
        if name in ("id", "image_id", "question_id"):
            if type(value) is not int or not 0 <= value <= _LARGEST:
                return f"{name} is {_short(value)}"
        elif name == "answers":
            if not isinstance(value, tuple) or not all(isinstance(answer, str) for answer in value):
                return "answers are not a list of texts"
        elif not isinstance(value, str):
            return f"{name} is {_short(value)}"
    return ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def repeated(values: list[int]) -> int | None:
    """The first value that occurs a second time."""
    seen: set[int] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def few(items: Sequence[object], most: int = 3) -> str:
    """The first items, and how many more there are."""
    start = ", ".join(str(item) for item in items[:most])
    return start if len(items) <= most else f"{start} and {len(items) - most:,} more"


def counted(number: int, noun: str) -> str:
    """ "1 image", "2,000 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def one_line(text: str) -> str:
    """The text without line breaks (which end an example in prompt formats) and repeated spaces."""
    return " ".join(text.split())
