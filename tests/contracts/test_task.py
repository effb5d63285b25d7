"""A task's file: what it may say, and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from icltool.contracts import Task, TaskFormat, read_task, task_from
from icltool.contracts.task import LATER_KEYS
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


CHOOSING = """
name = "choosing"
fields = ["question", "choices"]
ranked = true
metrics = ["accuracy"]

[prompts.completion]
query = "Question:{question} Answer:"

[letter_prompts.completion]
query = "Question:{question}\\n{choices}\\nAnswer:"
"""


@pytest.mark.parametrize(
    ("before", "after", "message", "hint"),
    [
        ("ranked", "rankde", "rankde: no such key", "did you mean 'ranked'?"),
        ("letter_prompts.completion", "letter_prompts.chat", 'letter_prompts need one for "completion"', ""),
        ("\\n{choices}", "", "letter_prompts.completion must contain {choices}", ""),
        ("ranked = true", 'rank_by = "letter"', 'rank_by = "letter" is for tasks with ranked = true', ""),
        ("ranked = true", 'extract = "letter"', "prompts.completion must contain {choices}", ""),
        ("ranked = true", 'ranked = true\nextract = "number"', "ranked = true ranks choices", ""),
        ("ranked = true", 'extract = "numbers"', "extract: must be \"first-line\", \"number\"", ""),
        ("ranked = true", 'extract = { regex = "a (b" }', "is not a regular expression", ""),
        ("ranked = true", 'extract = { regex = "a b" }', "needs exactly one group, the answer; 'a b' has 0", ""),
        ('query = "Question:{question} A', 'querry = "Question:{question} A', "completion.querry: no such key", "'query'"),
    ],
)  # fmt: skip
def test_a_wrong_way_to_choose_is_one_line_with_the_key(
    tmp_path: Path, before: str, after: str, message: str, hint: str
) -> None:
    assert before in CHOOSING
    path = written(tmp_path, CHOOSING.replace(before, after))
    with pytest.raises(ConfigError) as caught:
        read_task(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert hint in str(caught.value.hint)
    assert "\n" not in caught.value.message


def test_how_choices_are_ranked(tmp_path: Path) -> None:
    task = read_task(written(tmp_path, CHOOSING))
    assert (task.ranked, task.lettered, task.has_choices) == (True, False, True)
    assert task.ranked_by(None) == task == task.ranked_by("text", "mean", "strict")
    by_letter = task.ranked_by("letter", "sum")
    assert (by_letter.ranked, by_letter.lettered, by_letter.rank_norm) == (True, True, "sum")
    assert by_letter.prompts == task.letter_prompts
    written_out = task.ranked_by("generate", rule="mmmu")
    assert (written_out.ranked, written_out.lettered, written_out.has_choices) == (False, True, True)
    assert (written_out.extract, written_out.letter_rule) == ("letter", "mmmu")
    without = task.model_copy(update={"letter_prompts": {}})
    with pytest.raises(ConfigError, match="--rank-by letter: the prompts of task 'choosing' do not list the choices"):
        without.ranked_by("letter")
    with pytest.raises(ConfigError, match="--rank-norm: the answers of task 'species' are not ranked choices"):
        read_task(written(tmp_path, WHOLE)).ranked_by(None, "sum")


def test_later_keys_leave_the_definition_of_an_older_task_as_it_was(tmp_path: Path) -> None:
    """It is part of a data set's fingerprint."""
    definition = read_task(written(tmp_path, WHOLE)).definition()
    assert not set(LATER_KEYS) & set(definition)
    assert set(definition) | set(LATER_KEYS) == set(Task.model_fields)
    assert read_task(written(tmp_path, CHOOSING)).definition()["letter_prompts"]["completion"]["stop"] == []
    extract = WHOLE.replace("max_new_tokens = 4", 'extract = { regex = "a (b)" }')
    task = read_task(written(tmp_path, extract))
    assert task.definition()["extract"] == {"regex": "a (b)"}
    assert task_from(json.loads(json.dumps(task.definition())), "manifest") == task
