"""Turns the rows of any table into examples: captions, questions with answers, or texts with labels."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from typing import Any, TypedDict, TypeVar

from icltool.components.datasets.columns import AnswerKind, ColumnOptions, Columns
from icltool.components.datasets.official import counted, few, one_line
from icltool.components.datasets.reader import captioned
from icltool.components.datasets.vqa import most_frequent
from icltool.contracts import IMAGE_MARKER, Example, Task, group_code
from icltool.contracts.task import OWN_FIELDS
from icltool.errors import DataError

_WHOLE = re.compile(r"(?:0|-?[1-9]\d{0,17})\Z", re.ASCII)
_Item = TypeVar("_Item")
_TEXT_KEYS = ("answer", "raw", "caption", "text")
#: Roles whose values are prose.
_WRITTEN = ("caption", "question", "answer", "answers", "text", "choices")


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `place` is its line or row number in the source, `number` its id if the table has no ids.

    `values` are those of the source, by column. `image` is an absolute path, "" for none; `image_id` is None if the row
    has no image. `more` are its further images, (path, image id) of each; the id is None where a column names it.
    """

    place: int
    number: int
    values: Mapping[str, object]
    image: str = ""
    image_id: int | None = None
    more: tuple[tuple[str, int | None], ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """All its images, in order."""
        return (self.image, *(path for path, _ in self.more)) if self.image else ()


@dataclass
class Rows:
    """The rows of one split, and methods that read their cells.

    `name` and `row_word` ("line" or "row") name a row in messages: "captions.csv line 3". `class_names` are the names of
    the classes that `label` numbers, if the source has them. `options` say how cells are read.
    """

    name: str
    row_word: str
    columns: Columns
    rows: Sequence[Row]
    class_names: tuple[str, ...] = ()
    options: ColumnOptions = field(default_factory=ColumnOptions)
    _left_out: dict[str, list[int]] = field(default_factory=dict)
    _coded: bool = False
    _numbers: dict[str, list[int]] = field(default_factory=dict)
    _labels_as: Counter[str] = field(default_factory=Counter)

    def where(self, row: Row) -> str:
        return f"{self.name} {self.row_word} {row.place}"

    def leave_out(self, row: Row, what: str) -> None:
        """Records a row that gives no example, or one text less; see `remarks`."""
        self._left_out.setdefault(what, []).append(row.place)

    def remarks(self) -> tuple[str, ...]:
        """Remarks on what was left out and where, on numbers read as text, and on ids replaced by codes."""
        left_out = [
            f"{self.name}: {_counted(len(places), what)} left out ({self.row_word} {few(places)})"
            for what, places in self._left_out.items()
        ]
        coded = [f"{self.name}: ids that are not integers are replaced by 63-bit codes"] if self._coded else []
        numbers = [
            f"{self.name}: column {column!r} holds numbers, which are read as text ({self.row_word} {few(places)})"
            for column, places in self._numbers.items()
        ]
        return (*left_out, *numbers, *coded, *self._remarks_on_labels())

    def _remarks_on_labels(self) -> list[str]:
        """A remark if labels were read as numbers or letters of choices, unless the user says what they are."""
        if self.options.answer_kind or not self._labels_as.keys() - {"text"}:
            return []
        forms = {"text": "the text", "index": "the number from 0", "letter": "the letter"}
        parts = [f"{self._labels_as[kind]:,} as {form}" for kind, form in forms.items() if self._labels_as[kind]]
        return [f"{self.name}: labels are read {', '.join(parts)} of a choice (--option answer_kind= decides)"]

    def label_read_as(self, kind: str) -> None:
        """Records whether a label was the text, the number or the letter of its choice; see `remarks`."""
        self._labels_as[kind] += 1

    def texts(self, row: Row, role: str) -> tuple[str, ...]:
        """The texts in the columns of a role, unchanged. Raises DataError for a value without text."""
        texts: list[str] = []
        separator = self.options.answers_separator if role in ("answer", "answers") else None
        for column in self.columns.by_role.get(role, ()):
            value = row.values.get(column)
            if role in _WRITTEN and isinstance(value, (int, float)) and value == value:
                self._numbers.setdefault(column, []).append(row.place)
            try:
                texts += _texts(value)
            except TypeError as error:
                raise DataError(f"{self.where(row)}: column {column!r} holds {error}, not text") from error
        if separator:
            texts = [part for text in texts for part in map(str.strip, text.split(separator)) if part]
        return tuple(texts)

    def by_name(self, row: Row, role: str) -> dict[str, str]:
        """The texts of a JSON object by name; {} for an empty cell. Raises DataError for anything else."""
        column = self.columns[role][0] if role in self.columns else ""
        value = row.values.get(column)
        if value is None or value == "":
            return {}
        try:
            content: Any = json.loads(value) if isinstance(value, str) else value
            texts = {str(name): _texts(text) for name, text in content.items() if text is not None}
            return {name: one_line(text) for name, (text,) in texts.items()}
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"{self.where(row)}: column {column!r} is not a JSON object of texts", 'write {"+": "5", "-": "1"}'
            ) from error

    def text(self, row: Row, role: str) -> str:
        """The only text of a role, on one line; "" if it has none."""
        texts = self.texts(row, role)
        if len(texts) > 1:
            raise DataError(
                f"{self.where(row)}: column {self.columns[role][0]!r} holds {len(texts)} texts, but {role} takes one"
            )
        return one_line(texts[0]) if texts else ""

    def identifier(self, row: Row, role: str) -> int:
        """The integer in the column of `id` or `image_id`; any other text becomes a 63-bit code."""
        return self._code(row, role, self.text(row, role))

    def identifiers(self, row: Row, role: str, count: int) -> tuple[int, ...]:
        """The `count` integers or codes in the columns of a role. Raises DataError for another number of them."""
        texts = self.texts(row, role)
        if len(texts) != count:
            raise DataError(
                f"{self.where(row)} has {counted(count, 'image')}, but column {self.columns[role][0]!r} holds "
                f"{counted(len(texts), 'id')}",
                "give one for each image, or --option image_id= to do without",
            )
        return tuple(self._code(row, role, one_line(text)) for text in texts)

    def _code(self, row: Row, role: str, text: str) -> int:
        if not text:
            raise DataError(f"{self.where(row)} has no {role}", f"column {self.columns[role][0]!r} is empty there")
        self._coded = self._coded or not _WHOLE.match(text)
        return whole_or_code(text)


def _counted(number: int, what: str) -> str:
    """ "2 rows without a label"."""
    noun, without, field = what.partition(" without ")
    return f"{counted(number, noun)}{without}{field}"


def whole_or_code(text: str) -> int:
    """The integer that the text spells, else a non-negative 63-bit code of the text."""
    return int(text) if _WHOLE.match(text) else group_code(text)


def examples(rows: Rows, task: Task, choices: tuple[str, ...] = ()) -> list[Example]:
    """The examples of one split, in the order of their first rows; `rows.remarks()` then lists what was left out.

    `choices` are the labels of a classification (see `label_names`). Raises DataError for a repeated example id,
    or if no row is left.
    """
    result = _captioned(rows, task) if task.answers == "captions" else _by_row(rows, task, choices)
    if not result:
        raise DataError(f"{rows.name} has no row that task {task.name!r} can use", "; ".join(rows.remarks()) or None)
    return result


def examples_by_split(splits: Mapping[str, Rows], task: Task, chosen: tuple[str, ...]) -> dict[str, list[Example]]:
    """The examples of all splits by name; `chosen` are the labels that the user named for a classification, or (). Raises
    DataError as `examples` and `label_names`."""
    own = task.answers != "label" or any("choices" in rows.columns for rows in splits.values())
    choices = () if own else label_names(splits.values(), chosen)
    example_lists = with_text_groups([examples(rows, task, choices) for rows in splits.values()])
    return dict(zip(splits, example_lists, strict=True))


def _captioned(rows: Rows, task: Task) -> list[Example]:
    """One example per image, with the captions of all its rows."""
    by_image: dict[tuple[str, ...], list[Row]] = {}
    captions: dict[tuple[str, ...], list[str]] = {}
    for row in rows.rows:
        cells = rows.texts(row, "caption")
        texts = [text for text in map(one_line, cells) if text]
        if len(texts) < max(1, len(cells)):
            rows.leave_out(row, "empty caption")
        if texts:
            by_image.setdefault(row.images, []).append(row)
            captions.setdefault(row.images, []).extend(texts)
    row_of_id: dict[int, Row] = {}
    result = []
    for images, of_image in by_image.items():
        first, references = of_image[0], tuple(captions[images])
        identifier = _example_id(rows, first, row_of_id)
        for other in of_image[1:]:
            if "id" in rows.columns:
                row_of_id.setdefault(rows.identifier(other, "id"), first)
        image_id, *more_ids = _image_ids(rows, first)
        example = captioned(identifier, first.image, image_id, references, rows.text(first, "group"))
        example = replace(example, more_images=images[1:], more_image_ids=tuple(more_ids))
        result.append(replace(example, **_beside(rows, first, task)))
    return result


#: How a remark names a row that lacks a field or its answer.
_LACKING = {
    "question": "empty question",
    "text": "empty text",
    "style": "row without a style",
    "caption": "empty caption",
    "answers": "question without an answer",
    "label": "row without a label",
}


@dataclass(frozen=True, slots=True)
class _Answered:
    """A row's label ("" for none), its references, and the choices to rank."""

    label: str
    references: tuple[str, ...]
    choices: tuple[str, ...] = ()


def _by_row(rows: Rows, task: Task, choices: tuple[str, ...]) -> list[Example]:
    """One example per row."""
    row_of_id: dict[int, Row] = {}
    result = []
    for row in rows.rows:
        answer = _answer(rows, row, task, choices)
        fields = {name: rows.text(row, name) for name in _fields_of(task) if name in _OWN_TEXTS}
        beside = _beside(rows, row, task)
        if lacking := _lacking(row, task, answer, fields, beside):
            rows.leave_out(row, _LACKING.get(lacking, f"row without {task.called(lacking)}"))
            continue
        if answer.choices and answer.label not in answer.choices:
            raise _no_choice(rows, row, answer)
        text = fields.get("text") or fields.get("question") or ("" if task.answers == "label" else answer.label)
        image_id, *more_ids = _image_ids(rows, row, text)
        example = Example(
            id=_example_id(rows, row, row_of_id),
            image=row.image,
            image_id=image_id,
            text=text,
            label=answer.label,
            references=answer.references,
            question=fields.get("question", ""),
            group=rows.text(row, "group"),
            question_type=rows.text(row, "question_type"),
            answer_type=rows.text(row, "answer_type"),
            choices=answer.choices,
            style=fields.get("style", ""),
            more_images=row.images[1:],
            more_image_ids=tuple(more_ids),
            **beside,
        )
        result.append(_with_places(rows, row, example))
    return result


#: Example's own texts that a task may ask for, beside its rationale.
_OWN_TEXTS = ("question", "text", "style")


def _fields_of(task: Task) -> tuple[str, ...]:
    return (*task.fields, *task.optional)


class _Beside(TypedDict):
    """What an example has beside its question and its answers."""

    fields: dict[str, str]
    rationale: str
    rule: str
    labels: dict[str, str]


def _beside(rows: Rows, row: Row, task: Task) -> _Beside:
    further = [name for name in _fields_of(task) if name not in OWN_FIELDS]
    rationales = rows.texts(row, "rationale")
    return {
        "fields": {name: text for name in further if (text := rows.text(row, name))},
        "rationale": one_line(rationales[0]) if rationales else "",
        "rule": rows.text(row, "rule"),
        "labels": rows.by_name(row, "labels"),
    }


def _lacking(row: Row, task: Task, answer: _Answered, fields: Mapping[str, str], beside: _Beside) -> str:
    """The first field of the task that the row lacks, or the kind of its answers; "" if it has all."""
    present: dict[str, object] = {**beside["fields"], **fields, "image": row.image, "choices": answer.choices}
    present["rationale"] = beside["rationale"]
    lacking = next((name for name in task.fields if not present.get(name)), "")
    if not lacking and not any(present.get(name) for name in ("image", "question", "text")):
        lacking = "text"
    return lacking or ("" if answer.label else task.answers)


def _with_places(rows: Rows, row: Row, example: Example) -> Example:
    """The example with the places of its images, if the option `marker` is in its texts. Raises DataError if it is not there
    once for each image."""
    marker = rows.options.marker
    shown = (example.question, example.text if not example.question else "", example.style, *example.choices)
    count = sum(text.count(marker) for text in (*shown, *example.fields.values())) if marker else 0
    if not marker or not count:
        return example
    if count != len(row.images):
        raise DataError(
            f"{rows.where(row)} has {counted(len(row.images), 'image')}, but {marker} is {count} times in its texts",
            "put one marker for each image, or none: images then stand before the text",
        )

    def placed(text: str) -> str:
        own = text if marker == IMAGE_MARKER else text.replace(IMAGE_MARKER, f"{IMAGE_MARKER[0]} {IMAGE_MARKER[1:]}")
        return own.replace(marker, IMAGE_MARKER)

    text = one_line(example.text.replace(marker, " ")) if example.question else placed(example.text)
    return replace(
        example,
        question=placed(example.question),
        text=text,
        style=placed(example.style),
        choices=tuple(map(placed, example.choices)),
        label=placed(example.label) if example.choices else example.label,
        references=tuple(map(placed, example.references)) if example.choices else example.references,
        fields={name: placed(value) for name, value in example.fields.items()},
        images_in_text=True,
    )


def _answer(rows: Rows, row: Row, task: Task, choices: tuple[str, ...]) -> _Answered:
    if task.answers == "answers":
        chosen = rows.texts(row, "answer")
        answers = rows.texts(row, "answers") or chosen
        answered = _Answered(one_line(most_frequent(answers, chosen[0] if len(chosen) == 1 else "")), answers)
    elif task.answers == "label":
        label = label_of(rows, row)
        if label and "choices" in rows.columns:
            label, choices = _own_choice(rows, row, label, task)
        answered = _Answered(label, (label,), choices)
    else:
        texts = tuple(t for t in map(one_line, rows.texts(row, "caption")) if t)
        answered = _Answered(texts[0] if texts else "", texts)
    if not answered.label and (labels := rows.by_name(row, "labels")):
        first = next(iter(labels.values()))
        return _Answered(first, (first,), choices if first in choices else ())
    return answered


def _no_choice(rows: Rows, row: Row, answer: _Answered) -> DataError:
    return DataError(
        f"{rows.where(row)}: label {answer.label!r} is not among the choices ({few(answer.choices)})",
        "a label is one of its row's choices, or its number from 0; --option choices=no,yes sets the choices of all rows"
        if "choices" in rows.columns
        else "name all labels, numbered ones in the order of their numbers: --option choices=no,yes",
    )


def _own_choice(rows: Rows, row: Row, label: str, task: Task) -> tuple[str, tuple[str, ...]]:
    """(label, choices) of a row with its own choices; see ColumnOptions.answer_kind. Raises DataError for fewer than two
    choices, an empty one before another, or, unless the task asks for choices, a repeated one."""
    columns = rows.columns["choices"]
    if len(columns) > 1:
        texts = ["".join(_texts(row.values.get(column))) for column in columns]
    else:
        texts = list(rows.texts(row, "choices"))
        texts = texts[0].split("|") if len(texts) == 1 else texts
    choices = tuple(without_hole([one_line(text) for text in texts], rows.where(row), columns))
    repeated = len(set(choices)) < len(choices) and "choices" not in task.fields
    if len(choices) < 2 or repeated:
        raise DataError(
            f"{rows.where(row)}: column {columns[0]!r} holds {few(choices) or 'nothing'}, but needs two or more different "
            "choices",
            'write them as a JSON list or as "no|yes"; --option choices= ignores the column',
        )
    kind, place = _place_of(label, choices, rows.options.answer_kind)
    if place is None and rows.options.answer_kind:
        raise _no_choice(rows, row, _Answered(label, (label,), choices))
    if place is None:
        return label, choices
    rows.label_read_as(kind)
    return choices[place], choices


def list_in(cell: object) -> list[object]:
    """The items of a cell that holds a list, or a JSON list as text; else the cell alone."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            return [cell]
        return list(value) if isinstance(value, list) else [cell]
    return list(cell) if isinstance(cell, list | tuple) else [cell]


def without_hole(items: Sequence[_Item], where: str, columns: Sequence[str]) -> list[_Item]:
    """The items of a row's list, in one column or in one column each, without empty ones at the end. Raises DataError for an
    empty one before another."""
    last = max((place for place, item in enumerate(items) if item), default=-1)
    hole = next((place for place, item in enumerate(items[: last + 1]) if not item), None)
    if hole is None:
        return list(items[: last + 1])
    place = f"column {columns[hole]!r}" if len(columns) > 1 else f"item {hole + 1} of column {columns[0]!r}"
    raise DataError(f"{where}: {place} is empty, but a later one is not", "fill it in, or move the later ones up")


def _place_of(label: str, choices: tuple[str, ...], kind: AnswerKind | None) -> tuple[AnswerKind, int | None]:
    """(what the label is, the place of its choice); None if it is not one of the choices."""
    if kind in (None, "text") and (kind or label in choices):
        return "text", choices.index(label) if label in choices else None
    index = int(label) if _WHOLE.match(label) else -1
    if kind in (None, "index") and (kind or index >= 0):
        return "index", index if 0 <= index < len(choices) else None
    letter = label.upper() if kind else label
    places = [place for place, name in enumerate(ascii_uppercase[: len(choices)]) if name == letter]
    return "letter", places[0] if places else None


def label_of(rows: Rows, row: Row) -> str:
    """The label as a text: the class name if the source numbers its classes; "" for none (-1 of numbered classes)."""
    text = rows.text(row, "label")
    if not rows.class_names or not _WHOLE.match(text):
        return text
    number = int(text)
    return rows.class_names[number] if 0 <= number < len(rows.class_names) else ""


def label_names(splits: Iterable[Rows], chosen: tuple[str, ...]) -> tuple[str, ...]:
    """The choices of a classification: `chosen` by the user, the classes' names, or all labels sorted (numbers by value).

    If classes are numbered (by the source, or because the labels are the numbers 0 … n - 1, and -1 for none), the n chosen
    names become `class_names`, in order. Raises DataError if their number differs from that of the classes.
    """
    splits = list(splits)
    named = next((split.class_names for split in splits if split.class_names), ())
    if named and set(chosen) in (set(), set(named)):
        return chosen or named
    labels = {label_of(split, row) for split in splits for row in split.rows} - {""}
    numbered = labels <= {"-1", *map(str, range(len(chosen)))} and not labels & set(chosen)
    if named and len(chosen) != len(named):
        raise DataError(
            f"{len(chosen)} choices for the {len(named)} classes {', '.join(named)}",
            "name one per class with --option choices=, in the order of the classes",
        )
    if named or (chosen and labels and numbered):
        for split in splits:
            split.class_names = chosen
    return chosen or tuple(sorted(labels, key=_by_value))


def as_sets(splits: Mapping[str, Sequence[Example]]) -> dict[str, list[Example]]:
    """The splits with the text of examples that have a label and an image alone: demonstrations are compared by their label,
    queries have no text."""
    return {
        name: [replace(e, text=e.label) if not e.text and name == "train" else e for e in examples]
        for name, examples in splits.items()
    }


def with_text_groups(splits: Sequence[Sequence[Example]]) -> list[list[Example]]:
    """The examples of all splits; those without an image whose texts are equal (ignoring case and punctuation) form one group.

    Groups from the source are unchanged.
    """
    counts = Counter(normalised(e.text) for split in splits for e in split if not e.image)
    return [
        [
            replace(e, group=f"text: {normalised(e.text)}")
            if not e.image and not e.group and counts[normalised(e.text)] > 1
            else e
            for e in split
        ]
        for split in splits
    ]


def normalised(text: str) -> str:
    """The words of a text in lower case; the text itself if it has none."""
    return " ".join(re.findall(r"\w+", text.lower())) or text


def _example_id(rows: Rows, row: Row, row_of_id: dict[int, Row]) -> int:
    """The row's id, or its number without an id column. Raises DataError for a repeated id."""
    identifier = rows.identifier(row, "id") if "id" in rows.columns else row.number
    if identifier in row_of_id:
        id_text = rows.text(row, "id") if "id" in rows.columns else identifier
        raise DataError(
            f"{rows.where(row)} repeats the id {id_text} of {rows.row_word} {row_of_id[identifier].place}",
            "ids must be unique within a split; --option id= numbers the rows instead",
        )
    row_of_id[identifier] = row
    return identifier


def _image_ids(rows: Rows, row: Row, text: str = "") -> tuple[int, ...]:
    """The ids of the row's images: from their column, else from the images; without an image one code of the text."""
    if "image_id" in rows.columns:
        if row.more:
            return rows.identifiers(row, "image_id", len(row.images))
        return (rows.identifier(row, "image_id"),)
    first = row.image_id if row.image_id is not None else group_code(f"text: {normalised(text)}")
    return (first, *(image_id for _, image_id in row.more if image_id is not None))


def _texts(value: object) -> list[str]:
    """The texts in a cell: one text, a list, a JSON list, or records with one each. Raises TypeError for anything else."""
    if value is None:
        return []
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            return _json_list(value)
        return [value] if value else []
    if isinstance(value, dict):
        value = next((value[key] for key in _TEXT_KEYS if key in value), value)
        if isinstance(value, dict):
            raise TypeError("a record")
        return _texts(value)
    if isinstance(value, (list, tuple)):
        if all(type(item) is str for item in value):
            return list(value)
        return [text for item in value for text in (_texts(item) or [""])]
    return _number(value)


def _number(value: object) -> list[str]:
    """A number as text; none for NaN, which marks an empty cell. Raises TypeError for anything else."""
    if isinstance(value, bool):
        raise TypeError(f"the truth value {str(value).lower()}")
    if not isinstance(value, (int, float)):
        raise TypeError(type(value).__name__)
    if isinstance(value, float) and math.isnan(value):
        return []
    return [str(int(value) if isinstance(value, float) and value.is_integer() else value)]


def _json_list(text: str) -> list[str]:
    """The texts of a JSON list; the text itself if it is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else [text]


def _by_value(label: str) -> tuple[int, int, str]:
    return (0, int(label), "") if _WHOLE.match(label) else (1, 0, label)
