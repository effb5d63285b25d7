"""Turns the rows of any table into examples: captions, questions with answers, or texts with labels."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from icltool.components.datasets.columns import Columns
from icltool.components.datasets.official import counted, few, one_line
from icltool.components.datasets.reader import captioned
from icltool.components.datasets.vqa import most_frequent
from icltool.contracts import Example, Task, group_code
from icltool.errors import DataError

_WHOLE = re.compile(r"(?:0|-?[1-9]\d{0,17})\Z", re.ASCII)
_TEXT_KEYS = ("answer", "raw", "caption", "text")
#: Roles whose values are prose.
_WRITTEN = ("caption", "question", "answer", "answers", "text", "choices")


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `place` is its line or row number in the source, `number` its id if the table has no ids.

    `values` are those of the source, by column. `image` is an absolute path, "" for none; `image_id` is None if the row
    has no image.
    """

    place: int
    number: int
    values: Mapping[str, object]
    image: str = ""
    image_id: int | None = None


@dataclass
class Rows:
    """The rows of one split, and methods that read their cells.

    `name` and `row_word` ("line" or "row") name a row in messages: "captions.csv line 3". `class_names` are the names of
    the classes that `label` numbers, if the source has them.
    """

    name: str
    row_word: str
    columns: Columns
    rows: Sequence[Row]
    class_names: tuple[str, ...] = ()
    _left_out: dict[str, list[int]] = field(default_factory=dict)
    _coded: bool = False
    _numbers: dict[str, list[int]] = field(default_factory=dict)

    def where(self, row: Row) -> str:
        return f"{self.name} {self.row_word} {row.place}"

    def leave_out(self, row: Row, what: str) -> None:
        """Records a row that gives no example, or one text less; see `remarks`."""
        self._left_out.setdefault(what, []).append(row.place)

    def remarks(self) -> tuple[str, ...]:
        """Remarks on what was left out and where, on numbers read as text, and on ids replaced by codes."""
        left_out = [
            f"{self.name}: {counted(len(places), what)} left out ({self.row_word} {few(places)})"
            for what, places in self._left_out.items()
        ]
        coded = [f"{self.name}: ids that are not integers are replaced by 63-bit codes"] if self._coded else []
        numbers = [
            f"{self.name}: column {column!r} holds numbers, which are read as text ({self.row_word} {few(places)})"
            for column, places in self._numbers.items()
        ]
        return (*left_out, *numbers, *coded)

    def texts(self, row: Row, role: str) -> tuple[str, ...]:
        """The texts in the columns of a role, unchanged. Raises DataError for a value without text."""
        texts: list[str] = []
        for column in self.columns.by_role.get(role, ()):
            value = row.values.get(column)
            if role in _WRITTEN and isinstance(value, (int, float)) and value == value:
                self._numbers.setdefault(column, []).append(row.place)
            try:
                texts += _texts(value)
            except TypeError as error:
                raise DataError(f"{self.where(row)}: column {column!r} holds {error}, not text") from error
        return tuple(texts)

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
        text = self.text(row, role)
        if not text:
            raise DataError(f"{self.where(row)} has no {role}", f"column {self.columns[role][0]!r} is empty there")
        self._coded = self._coded or not _WHOLE.match(text)
        return whole_or_code(text)


def whole_or_code(text: str) -> int:
    """The integer that the text spells, else a non-negative 63-bit code of the text."""
    return int(text) if _WHOLE.match(text) else group_code(text)


def examples(rows: Rows, task: Task, choices: tuple[str, ...] = ()) -> list[Example]:
    """The examples of one split, in the order of their first rows; `rows.remarks()` then lists what was left out.

    `choices` are the labels of a classification (see `label_names`). Raises DataError for a repeated example id,
    or if no row is left.
    """
    result = _captioned(rows) if task.answers == "captions" else _by_row(rows, task, choices)
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


def _captioned(rows: Rows) -> list[Example]:
    """One example per image, with the captions of all its rows."""
    by_image: dict[str, list[Row]] = {}
    captions: dict[str, list[str]] = {}
    for row in rows.rows:
        cells = rows.texts(row, "caption")
        texts = [text for text in map(one_line, cells) if text]
        if len(texts) < max(1, len(cells)):
            rows.leave_out(row, "empty caption")
        if texts:
            by_image.setdefault(row.image, []).append(row)
            captions.setdefault(row.image, []).extend(texts)
    row_of_id: dict[int, Row] = {}
    result = []
    for image, of_image in by_image.items():
        first, references = of_image[0], tuple(captions[image])
        identifier = _example_id(rows, first, row_of_id)
        for other in of_image[1:]:
            if "id" in rows.columns:
                row_of_id.setdefault(rows.identifier(other, "id"), first)
        result.append(captioned(identifier, image, _image_id(rows, first), references, rows.text(first, "group")))
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
        fields = {field: rows.text(row, field) for field in (*task.fields, *task.optional) if field != "image"}
        answer = _answer(rows, row, task, choices)
        lacking = [field for field in task.fields if field != "image" and not fields[field]]
        if lacking or not answer.label:
            rows.leave_out(row, _LACKING[lacking[0] if lacking else task.answers])
            continue
        if answer.choices and answer.label not in answer.choices:
            raise _no_choice(rows, row, answer)
        text = fields.get("text") or fields.get("question") or answer.label
        result.append(
            Example(
                id=_example_id(rows, row, row_of_id),
                image=row.image,
                image_id=_image_id(rows, row, text),
                text=text,
                label=answer.label,
                references=answer.references,
                question=fields.get("question", ""),
                group=rows.text(row, "group"),
                question_type=rows.text(row, "question_type"),
                answer_type=rows.text(row, "answer_type"),
                choices=answer.choices,
                style=fields.get("style", ""),
            )
        )
    return result


def _answer(rows: Rows, row: Row, task: Task, choices: tuple[str, ...]) -> _Answered:
    if task.answers == "answers":
        chosen = rows.texts(row, "answer")
        answers = rows.texts(row, "answers") or chosen
        return _Answered(one_line(most_frequent(answers, chosen[0] if len(chosen) == 1 else "")), answers)
    if task.answers == "label":
        label = label_of(rows, row)
        if "choices" in rows.columns:
            label, choices = _own_choice(rows, row, label)
        return _Answered(label, (label,), choices)
    texts = tuple(t for t in map(one_line, rows.texts(row, "caption")) if t)
    return _Answered(texts[0] if texts else "", texts)


def _no_choice(rows: Rows, row: Row, answer: _Answered) -> DataError:
    return DataError(
        f"{rows.where(row)}: label {answer.label!r} is not among the choices ({few(answer.choices)})",
        "a label is one of its row's choices, or its number from 0; --option choices=no,yes sets the choices of all rows"
        if "choices" in rows.columns
        else "name all labels, numbered ones in the order of their numbers: --option choices=no,yes",
    )


def _own_choice(rows: Rows, row: Row, label: str) -> tuple[str, tuple[str, ...]]:
    """(label, choices) of a row with its own choices; a number that is not a choice counts them from 0. Raises DataError for
    fewer than two choices, or a repeated one."""
    column = rows.columns["choices"][0]
    texts = rows.texts(row, "choices")
    if len(texts) == 1 and len(rows.columns["choices"]) == 1:
        texts = tuple(texts[0].split("|"))
    choices = tuple(text for text in map(one_line, texts) if text)
    if len(choices) < 2 or len(set(choices)) < len(choices):
        raise DataError(
            f"{rows.where(row)}: column {column!r} holds {few(choices) or 'nothing'}, but needs two or more different choices",
            'write them as a JSON list or as "no|yes"; --option choices= ignores the column',
        )
    if label not in choices and _WHOLE.match(label) and 0 <= int(label) < len(choices):
        label = choices[int(label)]
    return label, choices


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


def _image_id(rows: Rows, row: Row, text: str = "") -> int:
    """The row's image id: from its column, else from the image, else a code of the text."""
    if "image_id" in rows.columns:
        return rows.identifier(row, "image_id")
    return row.image_id if row.image_id is not None else group_code(f"text: {normalised(text)}")


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
