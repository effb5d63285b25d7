"""VQAv2 with fewer validation questions: those in a file, or a reproducible draw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pydantic import Field, model_validator

from icltool.components.datasets.official import Question, counted, few, repeated
from icltool.components.datasets.vqa import AnsweredSplit, Places
from icltool.components.datasets.vqav2 import VQAv2Reader
from icltool.contracts import Options, keyed_generator, read_whole
from icltool.errors import ConfigError, DataError

#: Validation questions without `size` and `ids`.
SIZE = 10_000


class VQAv2SubOptions(Options):
    """Which validation questions are taken."""

    size: int | None = Field(None, ge=1, description=f"number of validation questions to draw; default: {SIZE:,}")
    ids: str = Field("", description="file of question ids, one per line or a JSON list, instead of a random draw")
    seed: int = Field(0, description="random seed of the draw")

    @model_validator(mode="after")
    def _check_choice(self) -> VQAv2SubOptions:
        if self.size is not None and self.ids:
            raise ConfigError("size and ids exclude each other", "the file of ids says how many questions there are")
        return self


class VQAv2SubReader(VQAv2Reader):
    """VQAv2 with all training questions, and `size` validation questions (default 10,000).

    They are drawn by `seed`: each question has a random number of its own (keyed by its id), and those with the smallest
    are taken, so that one question more or less in the files changes one at most. Or they are those of `ids`: a file of
    question ids, one a line or a JSON list; then `size` is not allowed. Examples are ordered as in VQAv2.
    """

    name = "vqav2-sub"

    options_model = VQAv2SubOptions

    def __init__(self, options: VQAv2SubOptions) -> None:
        self._size = SIZE if options.size is None else options.size
        self._seed = options.seed
        self._ids = Path(options.ids).expanduser().absolute() if options.ids else None

    def inputs(self) -> tuple[Path, ...]:
        return () if self._ids is None else (self._ids,)

    def split(self, places: Places, name: str) -> AnsweredSplit:
        """As VQAv2's; of "validation" the chosen questions. DataError for ids that VQAv2 does not have."""
        whole = super().split(places, name)
        if name != "validation":
            return whole
        if self._ids is None:
            chosen = _drawn(whole.questions, self._size, self._seed)
        else:
            chosen = _listed(self._ids, whole.questions, places.questions["val"])
        questions = [question for question in whole.questions if question.question_id in chosen]
        return replace(whole, questions=questions)

    def counts(self, name: str, path: Path, count: int) -> list[str]:
        if name != "validation":
            return super().counts(name, path, count)
        if self._ids is not None:
            return [f"validation: the {counted(count, 'question')} of {self._ids.name}"]
        short = (
            f", all of them; {self._size:,} were requested" if count < self._size else f", drawn by seed {self._seed}"
        )
        return [f"validation: {counted(count, 'question')} of {path.name}{short}"]


def _drawn(questions: list[Question], size: int, seed: int) -> set[int]:
    ids = [question.question_id for question in questions]
    if len(ids) <= size:
        return set(ids)
    keys = {i: int(keyed_generator(seed, "vqav2-sub", i).integers(2**63)) for i in ids}
    return set(sorted(ids, key=lambda i: (keys[i], i))[:size])


def _listed(path: Path, questions: list[Question], source: Path) -> set[int]:
    ids = read_ids(path)
    known = {question.question_id for question in questions}
    unknown = [i for i in ids if i not in known]
    if unknown:
        raise DataError(
            f"{path} has {counted(len(unknown), 'id')} of no answered question in {source.name}: {few(unknown)}",
            "it must hold question ids of VQAv2's validation split",
        )
    return set(ids)


def read_ids(path: Path) -> list[int]:
    """Question ids from a file: a JSON list, or one a line (blank lines do not count).

    Raises DataError that names file and line for an entry that is not an id, a repeated id, or a file without ids.
    """
    form = "it must hold question ids: a JSON list of integers, or one number a line"
    try:
        text = read_whole(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"{path} cannot be read: {reason}", form) from error
    ids = _of_list(path, text, form) if text.lstrip().startswith("[") else _of_lines(path, text, form)
    if not ids:
        raise DataError(f"{path} has no ids", form)
    twice = repeated(ids)
    if twice is not None:
        raise DataError(f"{path} lists question {twice} more than once", "list each question once")
    return ids


def _of_list(path: Path, text: str, form: str) -> list[int]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not well-formed JSON: {error}", form) from error
    for position, value in enumerate(values):
        if type(value) is not int or value < 0:
            raise DataError(f"{path}: entry {position} is not an id: {str(value)[:40]!r}", form)
    return list(values)


def _of_lines(path: Path, text: str, form: str) -> list[int]:
    ids = []
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.strip()
        if word and not (word.isascii() and word.isdigit() and len(word) < 20):
            raise DataError(f"{path}: line {number} is not an id: {word[:40]!r}", form)
        ids += [int(word)] if word else []
    return ids
