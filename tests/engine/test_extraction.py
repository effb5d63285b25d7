"""The answer in a continuation, by the task's key `extract`."""

from __future__ import annotations

from typing import Any

import pytest

from icltool.components.metrics.choice_letter import chosen_letter
from icltool.contracts import Example, Task, TaskFormat
from icltool.engine.extraction import extracted

QUERY = Example(1, "", 1, "?", "red", ("red",), question="?", choices=("red", "blue"))


def task(extract: Any, **keys: Any) -> Task:
    prompts = {"completion": TaskFormat("{question}{choices}")}
    asked = {"fields": ["question", "choices"], "metrics": ["accuracy"], "prompts": prompts}
    return Task.model_validate({"name": "t", **asked, "extract": extract, **keys})


def clean(text: str) -> str:
    """As a prompt format does: one line, up to the next example."""
    return " ".join(text.split()).partition("Question")[0].strip()


@pytest.mark.parametrize(
    ("extract", "raw", "answer"),
    [
        (None, "a cat\non a mat Question: what", "a cat on a mat"),
        ("first-line", "\n\n a cat \non a mat", "a cat"),
        ("first-line", "a cat Question: what\nnext", "a cat"),
        ("first-line", "", ""),
        ("number", "there are 1,250.5 of them, not 3", "1250.5"),
        ("number", "it is \u22124 degrees", "-4"),
        ("number", "about .5", ".5"),
        ("number", "none Question: 4", ""),
        ("yes-no", "Well, YES: it is not a no", "yes"),
        ("yes-no", "nothing, eyes", ""),
        ("letter", "The answer is B.", "blue"),
        ("letter", "C", ""),
        ("letter", "something", ""),
        ({"regex": r"answer is (\w+)"}, "I look.\nSo the answer\nis green, is it", "green"),
        ({"regex": r"answer is (\w+)"}, "green", ""),
        ({"regex": r"answer( is)?"}, "answer", ""),
    ],
)
def test_what_is_taken(extract: Any, raw: str, answer: str) -> None:
    assert extracted(task(extract), QUERY, raw, clean, chosen_letter) == answer


def test_a_letter_is_read_by_the_rule_of_the_task() -> None:
    assert extracted(task("letter"), QUERY, "b", clean, chosen_letter) == ""
    assert extracted(task("letter", letter_rule="lmms-seed"), QUERY, "b", clean, chosen_letter) == "blue"


def test_letters_need_a_reader() -> None:
    with pytest.raises(ValueError, match="without a reader of letters"):
        extracted(task("letter"), QUERY, "A", clean)
