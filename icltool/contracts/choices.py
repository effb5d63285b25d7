"""The choices of an example: their letters, and what an answer that is one of them is called."""

from __future__ import annotations

from string import ascii_uppercase

from icltool.contracts.records import IMAGE_MARKER, Example
from icltool.contracts.task import Task
from icltool.errors import DataError


def choice_letters(example: Example) -> str:
    """The letters of the example's choices, from A on. Raises DataError if there are more than 26."""
    if len(example.choices) > len(ascii_uppercase):
        raise DataError(
            f"example {example.id} has {len(example.choices)} choices, but there are {len(ascii_uppercase)} letters",
            "rank the choices by their texts: --rank-by text",
        )
    return ascii_uppercase[: len(example.choices)]


def choice_names(example: Example) -> tuple[str, ...]:
    """What each choice is called as a label and as an answer: its text, or its letter if it holds an image. Choices of equal
    texts have equal names."""
    if not example.images_in_text:
        return example.choices
    letters = choice_letters(example)
    return tuple(
        letter if IMAGE_MARKER in text else text for letter, text in zip(letters, example.choices, strict=True)
    )


def holds_images(example: Example) -> bool:
    """Whether any of its choices holds an image, so that its text does not tell it from the others."""
    return example.images_in_text and any(IMAGE_MARKER in choice for choice in example.choices)


def answer_shown(task: Task | str, example: Example) -> str:
    """What a prompt shows as the example's answer: its label, or the letter of its label (see Task.lettered). Of several equal
    choices the first counts. A label that is a letter already, and the text of no choice, stays; so does an empty label.

    Raises DataError for a label that is none of the choices.
    """
    if not isinstance(task, Task) or not task.lettered or not example.label:
        return example.label
    names, letters = choice_names(example), choice_letters(example)
    if example.label in names:
        return letters[names.index(example.label)]
    if example.label in list(letters):
        return example.label
    raise DataError(
        f"example {example.id} of task {task.name!r} has the label {example.label!r}, which is none of its "
        + (f"choices ({', '.join(example.choices)})" if example.choices else "choices: it has none"),
        "prepare the data set again with the choices of each row, or --rank-by text",
    )
