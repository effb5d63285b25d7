"""Choices: their letters, and what an answer that is one of them is called."""

from __future__ import annotations

import pytest

from icltool.contracts import Example, Task, TaskFormat, answer_shown, choice_letters, choice_names, holds_images
from icltool.errors import DataError

PROMPTS = {"completion": TaskFormat("{question}\n{choices}\nAnswer:")}
TASK = Task(
    name="choosing",
    fields=("question", "choices"),
    ranked=True,
    rank_by="letter",
    metrics=("accuracy",),
    prompts=PROMPTS,
)


def example(label: str, *choices: str, images: int = 0) -> Example:
    paths = tuple(f"/{n}.jpg" for n in range(images))
    return Example(
        7, paths[0] if paths else "", 1, "?", label, (label,), choices=choices, more_images=paths[1:],
        images_in_text=bool(images),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("label", "choices", "shown"),
    [
        ("blue", ("red", "blue"), "B"),
        ("", ("red", "blue"), ""),
        ("B", ("red", "blue"), "B"),
        ("B", ("B", "A"), "A"),  # the text of a choice comes first
        ("red", ("blue", "red", "red"), "B"),
    ],
)
def test_a_prompt_shows_the_letter(label: str, choices: tuple[str, ...], shown: str) -> None:
    assert answer_shown(TASK, example(label, *choices)) == shown
    assert answer_shown(TASK.ranked_by("text"), example(label, *choices)) == label
    assert answer_shown("choosing", example(label, *choices)) == label


@pytest.mark.parametrize("choices", [("red", "blue"), ()])
def test_a_label_that_is_none_of_the_choices(choices: tuple[str, ...]) -> None:
    with pytest.raises(
        DataError, match=r"example 7 of task 'choosing' has the label 'green', which is none of its choices"
    ):
        answer_shown(TASK, example("green", *choices))


def test_a_choice_that_holds_an_image_is_called_by_its_letter() -> None:
    with_images = example("B", "<image>", "<image>", "neither", images=2)
    assert choice_names(with_images) == ("A", "B", "neither")
    assert holds_images(with_images)
    assert answer_shown(TASK, with_images) == "B"
    in_question = example("red", "red", "blue", images=1)
    assert choice_names(in_question) == ("red", "blue")
    assert not holds_images(in_question)
    marker_as_text = example("<image>", "<image>", "blue")
    assert choice_names(marker_as_text) == ("<image>", "blue")
    assert not holds_images(marker_as_text)


def test_there_are_26_letters() -> None:
    assert choice_letters(example("c1", *(f"c{n}" for n in range(26)))) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    with pytest.raises(DataError, match="has 27 choices, but there are 26 letters"):
        choice_letters(example("c1", *(f"c{n}" for n in range(27))))
