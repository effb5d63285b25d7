"""Prompt files: which rule counts, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from icltool.components.tasks import task_named
from icltool.contracts import Example, PromptFile, TaskFormat, read_prompt
from icltool.engine.extraction import extracted
from icltool.errors import ConfigError

WHOLE = """
description = "terse"
instruction = "Look."
style = "flat"

[tasks.vqa]
query = "Q: {question} A:"
label_words = { yes = "ja", no = "nein" }

[families.chat]
system = "You are terse."

[families.chat.tasks.vqa]
answer = "{rationale} So: {label}"

[families.idefics]
separator = "\\n"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_most_special_rule_counts(tmp_path: Path) -> None:
    prompt, base = read_prompt(written(tmp_path, WHOLE)), TaskFormat("Caption:", ("Caption",), "Old.")
    words = {"yes": "ja", "no": "nein"}
    assert prompt.applied(base, ("completion",), "caption") == TaskFormat("Caption:", ("Caption",), "Look.")
    assert prompt.applied(base, ("completion", "idefics"), "vqa") == TaskFormat(
        "Q: {question} A:", ("Q:",), "Look.", separator="\n", label_words=words
    )
    chat = prompt.applied(base, ("chat",), "vqa")
    assert (chat.system, chat.answer) == ("You are terse.", "{rationale} So: {label}")
    assert prompt.style == "flat"


def test_a_request_of_its_own_has_its_beginning_as_stop() -> None:
    base = TaskFormat("Caption:", ("Caption",))
    assert PromptFile(query="{question} Answer:").applied(base, (), "vqa").stop == ("\n",)
    assert PromptFile(query="{question}", answer="{rationale}\nSo {label}").applied(base, (), "vqa").stop == ()
    assert PromptFile(query="\nUser: {question}").applied(base, (), "vqa").stop == ("User:",)
    assert PromptFile(query="A", demonstration="B {question}").applied(base, (), "vqa").stop == ("B",)
    assert PromptFile(query="A", stop=("x",)).applied(base, (), "vqa").stop == ("x",)


def test_its_identity_is_what_decides_prompts(tmp_path: Path) -> None:
    prompt = read_prompt(written(tmp_path, WHOLE))
    identity = prompt.identity()
    assert "description" not in identity
    assert PromptFile(**identity) == prompt.model_copy(update={"description": ""})
    assert PromptFile().identity() == {}


def test_words_stand_for_labels() -> None:
    rules = TaskFormat("", label_words={"yes": "ja"})
    assert [rules.word(label) for label in ("yes", "no")] == ["ja", "no"]
    assert [rules.label(answer) for answer in ("ja", "no", "yes")] == ["yes", "no", "yes"]


def test_new_fields_leave_the_identity_of_older_forms() -> None:
    assert repr(TaskFormat("Q")) == "TaskFormat(query='Q', stop=(), instruction='', cut_at_comma=False)"
    assert "separator=''" in repr(TaskFormat("Q", separator=""))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("querry = 'x'", "mine.toml: unknown key querry", "did you mean 'query'?"),
        ("[tasks.vqa]\nanswr = 'x'", "mine.toml: unknown key tasks.vqa.answr", "did you mean 'answer'?"),
        ("[families.chat]\nzzz = 1", "mine.toml: unknown key families.chat.zzz", "known: system, instruction, query"),
        ("query = 3", "mine.toml: query: Input should be a valid string", "correct it"),
        ("style = 'poem'", "mine.toml: style: Input should be 'turns' or 'flat'", "correct it"),
        ("answer = 'yes'", "mine.toml: answer has no {label}", 'for example answer = " {label}"'),
        (
            "[tasks.vqa.label_words]\na = 'x'\nb = 'x'",
            "mine.toml: tasks.vqa.label_words has one word for two",
            "give each",
        ),
        ("query = ", "mine.toml is not valid TOML", "correct it"),
        (
            "answer = '{label} {text}'",
            "mine.toml: answer has {text}; it may have {label} and {rationale}",
            "for example",
        ),
        ("answer = '{label} or {label}'", "mine.toml: answer has a field twice", "for example"),
        ("answer = '{rationale} {label}'", "mine.toml: answer has no words between", "for example"),
        ("stop = ['']", "mine.toml: stop has an empty word", "leave it out"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_key(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_prompt(written(tmp_path, text))
    assert message in caught.value.message
    assert hint in str(caught.value.hint)
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompt file .*none\.toml cannot be read: No such file"):
        read_prompt(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"query = '\xe4'")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        read_prompt(tmp_path / "latin.toml")


def test_an_answer_is_cut_out_of_a_chain_of_thought(tmp_path: Path) -> None:
    prompt = read_prompt(
        written(tmp_path, "extract = { regex = 'answer is (.+?)\\.?$' }\nanswer = '{rationale} The answer is {label}.'")
    )
    assert prompt.identity() == {
        "extract": {"regex": r"answer is (.+?)\.?$"},
        "answer": "{rationale} The answer is {label}.",
    }
    assert PromptFile(**prompt.identity()) == prompt
    task = task_named("vqa").model_copy(update={"extract": prompt.extract})
    query = Example(1, "", 1, "q", "ja", ("ja",))
    assert extracted(task, query, "It is red. The answer is two cats.", str.strip) == "two cats"
    assert extracted(task, query, "It is red.", str.strip) == ""
    with pytest.raises(ConfigError, match="extract: the regular expression needs exactly one group"):
        read_prompt(written(tmp_path, "extract = { regex = 'x' }"))
