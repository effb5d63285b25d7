"""A task's file: what it may say, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.contracts import Task, TaskFormat, read_task
from icltool.errors import ConfigError

WHOLE = """
name = "species"
fields = ["image", "question"]
answers = "caption"
metrics = ["exact-match", "cider"]
names = { caption = "animal" }
max_new_tokens = 4

[prompts.completion]
query = "Question:{question} Animal:"
stop = ["Question", "Animal"]

[prompts.chat]
query = "{question} Its name only."
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "species.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    task = read_task(written(tmp_path, WHOLE))
    assert task == Task(
        name="species",
        fields=("image", "question"),
        answers="caption",
        metrics=("exact-match", "cider"),
        names={"caption": "animal"},
        max_new_tokens=4,
        prompts={
            "completion": TaskFormat("Question:{question} Animal:", ("Question", "Animal")),
            "chat": TaskFormat("{question} Its name only."),
        },
    )
    assert (task.metric, task.asked_field, task.ranked, task.num_beams) == ("exact-match", "question", False, 3)
    assert task.called("caption") == "animal"
    assert task.called("question") == "question"


def test_a_template_that_it_does_not_know_is_asked_as_a_completion(tmp_path: Path) -> None:
    task = read_task(written(tmp_path, WHOLE))
    assert task.prompt(("live", "completion")) == task.prompts["completion"]
    assert task.prompt(("chat", "completion")) == task.prompts["chat"]
    with pytest.raises(ConfigError, match="no prompt for the template 'captioner'"):
        task.prompt(("captioner",))


@pytest.mark.parametrize(
    ("fields", "answers", "own"),
    [
        (("image",), "captions", True),
        (("image", "style"), "caption", True),
        (("image", "question"), "caption", False),
        (("image", "question"), "answers", False),
        (("text",), "label", False),
    ],
)
def test_whether_its_text_is_what_is_to_be_written(fields: tuple[str, ...], answers: str, own: bool) -> None:
    task = Task.model_validate({"name": "t", "fields": fields, "answers": answers, "metrics": ["cider"]})
    assert task.own_text is own


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("name =", "nmae =", "no such key"),
        ('"species"', '"My Species"', "name: String should match"),
        ('["exact-match", "cider"]', "[]", "metrics: Tuple should have at least 1 item"),
        ('"caption"\n', '"texts"\n', "answers: Input should be"),
        ('["image", "question"]', '["image"]', "asks for {question}, which is not a field"),
        ("[prompts.completion]", "[prompts.lever-lm]", 'prompts need one for "completion"'),
        ("stop = [", "stops = [", "prompts.completion.stops: no such key"),
        ("max_new_tokens = 4", "max_new_tokens = 0", "max_new_tokens: Input should be greater than"),
        ("[prompts.chat]", "[prompts.chat", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_one_line_with_the_key(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in WHOLE
    path = written(tmp_path, WHOLE.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        read_task(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_task(tmp_path / "none.toml")
