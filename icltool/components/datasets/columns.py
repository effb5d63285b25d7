"""The columns of a table by their role (image, caption …): named by options, or recognised by common names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from icltool.components.datasets.official import few
from icltool.components.tasks import task_named
from icltool.contracts import Options, Task
from icltool.errors import DataError, OtherTaskError

#: Common names of the column for each role, the preferred first; the role's own name needs no remark.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "image": (
        "image",
        "file_name",
        "filename",
        "image_path",
        "image_file",
        "img",
        "img_path",
        "file",
        "filepath",
        "path",
    ),
    "caption": ("caption", "captions", "sentences", "description", "alt_text", "text", "sentence"),
    "question": ("question",),
    "answers": ("answers",),
    "answer": ("answer", "multiple_choice_answer"),
    "text": ("text", "sentence", "content"),
    "label": ("label", "labels", "class", "category", "target"),
    "id": ("id", "question_id", "example_id", "sample_id", "idx"),
    "image_id": ("image_id", "img_id", "imgid"),
    "split": ("split",),
    "group": ("group",),
    "style": ("style", "personality"),
    "question_type": ("question_type",),
    "answer_type": ("answer_type",),
    "choices": ("choices", "options", "choice", "option"),
}
#: The roles that can hold an example's answers (one is required), and the optional roles beside them.
_ANSWERS: dict[str, tuple[str, ...]] = {
    "captions": ("caption",),
    "caption": ("caption",),
    "answers": ("answers", "answer"),
    "label": ("label",),
}
_BESIDE: dict[str, tuple[str, ...]] = {"answers": ("question_type", "answer_type"), "label": ("choices",)}
_ALWAYS = ("id", "image_id", "split", "group")
#: The tasks that an error suggests if the table lacks a column for the requested one.
_USUAL_TASKS = ("caption", "vqa", "classification")
_NUMBERED = ("caption", "captions", "answer", "answers", "choice", "option")


class ColumnOptions(Options):
    """Which column holds what. Columns that are not named are recognised by common names; an empty name means none."""

    image: str | None = Field(None, description="column of the image, which is a path or an encoded image")
    caption: str | None = Field(None, description="column of the caption, or of a list of them")
    question: str | None = Field(None, description="column of the question")
    answer: str | None = Field(None, description="column of the answer")
    answers: str | None = Field(None, description="column of the list of all answers")
    text: str | None = Field(None, description="column of the text to classify")
    label: str | None = Field(None, description="column of the text's label")
    id: str | None = Field(None, description="column of the example's id; default: the number of the row")
    image_id: str | None = Field(
        None, description="column of the image's id; default: rows with the same image file share an id"
    )
    group: str | None = Field(None, description="column of the group of near-duplicates that the image belongs to")
    choices: str | None = Field(
        None, description="column of the row's choices, or the choices of all rows, separated by commas"
    )
    seed: int = Field(0, description="random seed of the images that are held out as queries")

    @property
    def named(self) -> dict[str, str | None]:
        """The column of each role except "choices", which may name labels instead."""
        return {role: getattr(self, role) for role in SYNONYMS if role in type(self).model_fields and role != "choices"}


@dataclass(frozen=True)
class Columns:
    """The columns of each role (several only if they are numbered: caption_1, caption_2 …)."""

    by_role: Mapping[str, tuple[str, ...]]
    remarks: tuple[str, ...] = ()

    def __contains__(self, role: str) -> bool:
        return role in self.by_role

    def __getitem__(self, role: str) -> tuple[str, ...]:
        return self.by_role.get(role, ())

    def without(self, role: str) -> Columns:
        """The same columns without those of `role`."""
        return Columns({known: columns for known, columns in self.by_role.items() if known != role}, self.remarks)

    def names(self) -> list[str]:
        """All columns that are read, without duplicates."""
        return list(dict.fromkeys(column for columns in self.by_role.values() for column in columns))


def chosen_columns(where: str, present: Sequence[str], task: Task, named: Mapping[str, str | None]) -> Columns:
    """The columns that `task` reads from a table with the columns `present`.

    `named` are the user's choices by role: None looks for the common names, ignoring case; "" leaves the role out. `where`
    names the table in messages. Raises DataError if a chosen column or one that the task needs is missing.
    """
    for role, column in named.items():
        if column and column not in present:
            raise DataError(f"{where} has no column {column!r} (option {role}=)", _listed(present))
    by_role: dict[str, tuple[str, ...]] = {}
    needed = _needed(task)
    readable = [
        *(role for roles in needed for role in roles),
        *task.optional,
        *_ALWAYS,
        *_BESIDE.get(task.answers, ()),
    ]
    claimed = {column for column in named.values() if column}
    for role in readable:
        column = named.get(role)
        columns = (
            (column,)
            if column
            else ()
            if column == ""
            else _usual(role, [c for c in present if c not in claimed], task)
        )
        if columns:
            by_role[role] = columns
    missing = [roles for roles in needed if not any(role in by_role for role in roles)]
    if missing:
        names = ", ".join(" or ".join(roles) for roles in missing)
        raise OtherTaskError(
            f"{where} has no column for {names}, which task {task.name!r} needs", _way_out(present, missing[0][0])
        )
    remarks = [
        f"{where}: column {', '.join(columns)} is read as {role}"
        for role, columns in by_role.items()
        if named.get(role) is None and columns[0] not in (role, task.called(role)) and not _is_numbered(columns[0])
    ]
    used = {column for columns in by_role.values() for column in columns}
    if unused := [column for column in present if column not in used]:
        remarks.append(f"{where}: task {task.name!r} does not use column{'s' * (len(unused) > 1)} {few(unused)}")
    return Columns(by_role, tuple(remarks))


def _needed(task: Task) -> list[tuple[str, ...]]:
    """The roles that a task requires, one of each tuple."""
    return [*((field,) for field in task.fields), _ANSWERS[task.answers]]


def _usual(role: str, present: Sequence[str], task: Task) -> tuple[str, ...]:
    lower = {column.lower().strip().replace(" ", "_").replace("-", "_"): column for column in reversed(present)}
    names = (task.called(role), *SYNONYMS[role])
    if role == "caption" and any(name in lower for name in SYNONYMS["label"]):
        names = tuple(name for name in names if name not in SYNONYMS["text"])  # with a label, a text is classified
    own = next((name for name in (task.called(role), role, f"{role}s") if name in lower and name in names), None)
    if own:
        return (lower[own],)
    numbered = sorted(
        (int(match[2]), column)
        for name, column in lower.items()
        if (match := re.fullmatch(r"([a-z]+)_?(\d+)", name)) and match[1] in _NUMBERED and match[1] in names
    )
    if numbered:
        return tuple(column for _, column in numbered)
    known = next((name for name in names if name in lower), None)
    return (lower[known],) if known else ()


def _is_numbered(column: str) -> bool:
    return column[-1:].isdigit()


def _way_out(present: Sequence[str], role: str) -> str:
    """The hint: the table's columns, how to name one, and the tasks that the columns suffice for."""
    known = map(task_named, _USUAL_TASKS)
    tasks = [t.name for t in known if all(any(_usual(r, present, t) for r in roles) for roles in _needed(t))]
    other = f"; they suffice for task {' and '.join(tasks)}: --task {tasks[0]}" if tasks else ""
    return f"{_listed(present)}; name it with --option {role}=COLUMN{other}"


def _listed(present: Sequence[str]) -> str:
    return f"its columns: {', '.join(repr(column) for column in present)}"
