"""The tasks that icltool brings along: each conforms, is registered, and is asked as it always was."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

import icltool.components.tasks
from icltool.components.models.chat.chat_format import conversation
from icltool.components.models.shared.prompt_format import IDEFICS_FORMATS, TEXT, PromptFormat
from icltool.components.tasks import BUILT_IN, caption_tasks, formats, task_named
from icltool.contracts import Example, Task, TaskFormat, read_task
from icltool.errors import ConfigError
from icltool.plugin.manager import component, load_registry
from icltool.testing import check_task

QUERY = Example(1, "/a.jpg", 1, "a fine film", "yes", ("yes",), "is it?", style="Calm", choices=("no", "yes"))


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_conforms(name: str) -> None:
    check_task(name)


def test_each_is_one_file_and_one_row() -> None:
    folder = Path(icltool.components.tasks.__file__).parent
    own = {item.name for item in load_registry().components if item.kind == "tasks" and item.distribution == "icltool"}
    assert own == {path.stem for path in folder.glob("*.toml")}
    assert own >= set(BUILT_IN)
    for name in BUILT_IN:
        assert component("tasks", name) == task_named(name)
        assert task_named(name).name == name


def test_the_tasks_of_captions() -> None:
    assert caption_tasks() == ("caption", "style", "inference")


def test_any_other_name_is_unknown() -> None:
    with pytest.raises(KeyError):
        task_named("ranking")


@pytest.mark.parametrize(
    ("name", "metrics", "tokens", "guard"),
    [
        ("caption", ("cider",), 20, ("text",)),
        ("vqa", ("vqa-accuracy",), 5, ()),
        ("classification", ("accuracy", "macro-f1", "auc"), 5, ()),
        ("style", ("cider",), 20, ("text",)),
        ("inference", ("cider",), 30, ("text",)),
        ("inference-choice", ("accuracy", "mean-rank"), 30, ()),
        ("multiple-choice", ("accuracy",), 10, ()),
        ("open-answer", ("exact-match",), 20, ()),
    ],
)
def test_how_it_is_judged(name: str, metrics: tuple[str, ...], tokens: int, guard: tuple[str, ...]) -> None:
    task = task_named(name)
    assert (task.metrics, task.max_new_tokens, task.guard) == (metrics, tokens, guard)
    assert (task.num_beams, task.length_penalty) == (3, 0.0)
    assert task.ranked == (name in ("classification", "inference-choice", "multiple-choice"))


def test_a_copy_of_a_built_in_under_another_name_is_asked_word_for_word_alike() -> None:
    """By every template of a family: nothing but the file decides how a task is asked."""
    for form in IDEFICS_FORMATS.values():
        for name in BUILT_IN:
            copy = task_named(name).model_copy(update={"name": "another"})
            examples = [QUERY, QUERY]
            assert form.prompt(copy, examples, QUERY) == form.prompt(name, examples, QUERY)
            text = 'red, "and" blue. Caption:a Question:b Input:c Clue:d'
            assert form.clean(copy, text) == form.clean(name, text)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_copy_of_its_file_under_another_name_writes_the_same_prompts(tmp_path: Path, name: str) -> None:
    text = (files(icltool.components.tasks) / f"{name}.toml").read_text("utf-8")
    path = tmp_path / "copy.toml"
    path.write_text(text.replace(f'name = "{name}"', 'name = "copy"'), "utf-8")
    task, copy = task_named(name), read_task(path)
    assert copy.definition() == {**task.definition(), "name": "copy"}
    pairs = [(task, copy)]
    pairs += [(task.ranked_by(how), copy.ranked_by(how)) for how in ("letter", "generate") if task.letter_prompts]
    pairs += [(task.without_text(), copy.without_text())] if task.image_prompts else []
    demonstration = replace(QUERY, id=2, label="no")
    for own, copied in pairs:
        for form in IDEFICS_FORMATS.values():
            assert form.prompt(copied, [demonstration], QUERY) == form.prompt(own, [demonstration], QUERY)
            assert form.clean(copied, "B. Question:c") == form.clean(own, "B. Question:c")
        for style in ("turns", "flat"):
            assert conversation(copied, [demonstration], QUERY, style) == conversation(
                own, [demonstration], QUERY, style
            )


def test_a_format_that_does_not_know_a_built_in_task_refuses_it_given_either_way() -> None:
    for task in ("caption", task_named("caption")):
        with pytest.raises(ConfigError, match="no task 'caption'"):
            TEXT.prompt(task, [], QUERY)


def test_an_answer_that_is_not_cut_does_not_conform() -> None:
    prompts = {"completion": TaskFormat("Count:", stop=("Number",))}
    with pytest.raises(AssertionError, match="`stop` does not end an answer"):
        check_task(Task(name="counting", metrics=("exact-match",), prompts=prompts))


def test_a_prompt_that_hides_the_question_does_not_conform() -> None:
    prompts = {"completion": TaskFormat("Answer:", stop=("Answer",))}
    with pytest.raises(AssertionError, match="does not say the example's question"):
        check_task(Task(name="asking", fields=("image", "question"), metrics=("exact-match",), prompts=prompts))


def test_an_unknown_metric_does_not_conform() -> None:
    prompts = {"completion": TaskFormat("Answer:", stop=("Answer",))}
    with pytest.raises(AssertionError, match="`metrics` names beauty"):
        check_task(Task(name="asking", metrics=("beauty",), prompts=prompts))


def test_formats_leave_out_tasks_that_know_none_of_the_templates() -> None:
    assert set(formats("captioner")) == set(BUILT_IN) - {"classification", "multiple-choice", "open-answer"}
    assert list(formats("live", "completion")) == list(BUILT_IN)
    assert formats("live", "completion")["vqa"].closing == "."
    assert isinstance(IDEFICS_FORMATS["live"], PromptFormat)
