"""The columns of a table by their role (image, caption …): named by options, or recognised by common names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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
        "images",
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
    "rationale": ("rationale", "rationales", "explanation", "reasoning"),
    "rule": ("rule",),
    "labels": ("labels",),
}
#: The roles that can hold an example's answers (one is required), and the optional roles beside them.
_ANSWERS: dict[str, tuple[str, ...]] = {
    "captions": ("caption",),
    "caption": ("caption",),
    "answers": ("answers", "answer"),
    "label": ("label",),
}
_BESIDE: dict[str, tuple[str, ...]] = {"answers": ("question_type", "answer_type"), "label": ("choices",)}
_ALWAYS = ("id", "image_id", "split", "group", "rationale", "rule")
#: The tasks that an error suggests if the table lacks a column for the requested one.
_USUAL_TASKS = ("caption", "vqa", "classification")
_NUMBERED = ("caption", "captions", "answer", "answers", "choice", "choices", "option", "options", "image", "img")
#: Roles whose order matters: their numbered columns have no gap.
_ORDERED = ("image", "choices")
AnswerKind = Literal["text", "index", "letter"]


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
    rationale: str | None = Field(None, description="column of the reasoning that leads to the answer")
    rule: str | None = Field(None, description="column of the rule that a query is answered by")
    labels: str | None = Field(
        None,
        description="column of an example's label under each rule, a JSON object; default: labels, beside a column rule",
    )
    answer_kind: AnswerKind | None = Field(
        None,
        description="what a label is if the row has choices: the choice's text, its number from 0, or its letter; default: by "
        "row, the text if it is one of the choices",
    )
    answers_separator: str | None = Field(None, min_length=1, description="text between several answers, such as |")
    marker: str | None = Field(
        None,
        min_length=1,
        description="text where the next image of the row stands, such as <image>; default: images stand before the text",
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
    names the table in messages. Raises DataError if a chosen column or one that the task needs is missing, or if numbered
    columns of images or choices have a gap.
    """
    for role, column in named.items():
        if column and column not in present:
            raise DataError(f"{where} has no column {column!r} (option {role}=)", _listed(present))
    named = {**named, **_by_rule(present, named)}
    needed = _needed(task)
    readable = [
        *(role for roles in needed for role in roles),
        *task.optional,
        *_ALWAYS,
        *_BESIDE.get(task.answers, ()),
    ]
    claimed = {column for column in named.values() if column}
    by_rule = named.get("labels")
    by_role: dict[str, tuple[str, ...]] = {"labels": (by_rule,)} if by_rule else {}
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
            _check_numbers(where, role, columns)
    missing = [roles for roles in needed if not any(role in by_role for role in roles)]
    if "labels" in by_role:
        missing = [roles for roles in missing if roles != needed[-1]]
    if missing:
        names = ", ".join(" or ".join(roles) for roles in missing)
        raise OtherTaskError(
            f"{where} has no column for {names}, which task {task.name!r} needs", _way_out(present, missing[0][0])
        )
    return Columns(by_role, tuple(_remarks(where, present, task, named, by_role)))


def _by_rule(present: Sequence[str], named: Mapping[str, str | None]) -> dict[str, str | None]:
    """The column of the labels by rule: the one that the user names, or "labels" beside a column "rule"."""
    if named.get("labels") is not None or named.get("rule") == "" or "labels" in named.values():
        return {}
    return {"labels": "labels"} if "labels" in present and (named.get("rule") or "rule" in present) else {}


def _check_numbers(where: str, role: str, columns: Sequence[str]) -> None:
    numbers = [int(match[0]) if (match := re.search(r"\d+$", c)) else ord(c[-1].lower()) for c in columns]
    if role not in _ORDERED or len(columns) == 1:
        return
    gap = next((n for n in range(numbers[0], numbers[-1]) if n not in numbers), None)
    if gap is not None:
        last = re.sub(r"(\d+|.)$", str(gap) if columns[0][-1].isdigit() else chr(gap), columns[0])
        raise DataError(f"{where} has the columns {few(columns)}, but no {last}", "number them without a gap")


def _remarks(
    where: str,
    present: Sequence[str],
    task: Task,
    named: Mapping[str, str | None],
    by_role: Mapping[str, tuple[str, ...]],
) -> list[str]:
    """Remarks on columns that were recognised by another name than their role's, and on those that are not read."""
    remarks = [
        f"{where}: column {', '.join(columns)} is read as {role}"
        for role, columns in by_role.items()
        if named.get(role) is None
        and columns[0] not in (role, task.called(role))
        and not (_is_numbered(columns[0]) or len(columns) > 1)
    ]
    used = {column for columns in by_role.values() for column in columns}
    unused = [column for column in present if column not in used]
    choices = _usual("choices", unused, task) if named.get("choices") is None and "choices" not in by_role else ()
    if choices:
        remarks.append(
            f"{where}: column{'s' * (len(choices) > 1)} {', '.join(choices)} may hold choices, which task {task.name!r} does "
            "not use (--task multiple-choice does)"
        )
    if unused := [column for column in unused if column not in choices]:
        remarks.append(f"{where}: task {task.name!r} does not use column{'s' * (len(unused) > 1)} {few(unused)}")
    return remarks


def lacks_text(present: Sequence[str], task: Task, named: Mapping[str, str | None]) -> bool:
    """Whether a table with these columns has images, and none of the texts that the task needs."""

    def there(role: str) -> bool:
        column = named.get(role)
        return bool(column) or (column is None and bool(_usual(role, present, task)))

    return there("image") and not any(there(field) for field in task.fields if field != "image")


def _needed(task: Task) -> list[tuple[str, ...]]:
    """The roles that a task requires, one of each tuple."""
    return [*((field,) for field in task.fields), _ANSWERS[task.answers]]


def _usual(role: str, present: Sequence[str], task: Task) -> tuple[str, ...]:
    lower = {column.lower().strip().replace(" ", "_").replace("-", "_"): column for column in reversed(present)}
    names = (task.called(role), *SYNONYMS.get(role, (role,)), *(_OF_CHOICES if _is_choice(role, task) else ()))
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
    lettered = sorted(
        name
        for name in lower
        if role == "choices" and (match := re.fullmatch(r"([a-z]+)_[a-z]", name)) and match[1] in _LETTERED
    )
    if len(lettered) > 1:
        return tuple(lower[name] for name in lettered)
    known = next((name for name in names if name in lower), None)
    return (lower[known],) if known else ()


#: Names of the column that holds the label of a question with choices.
_OF_CHOICES = ("answer",)
_LETTERED = ("choice", "option")


def _is_choice(role: str, task: Task) -> bool:
    return role == "label" and "question" in task.fields


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
