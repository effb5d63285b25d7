"""The conformance suite of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from icltool.components.models.shared.prompt_format import PromptFormat
from icltool.contracts import Example, Task, answer_shown
from icltool.contracts.task import OWN_FIELDS
from icltool.plugin.manager import component, load_registry
from icltool.testing.expectations import expect

_FIRST = {"question": "what is left", "text": "a fine day", "style": "Calm", "rationale": "it is bright"}
_SECOND = {"question": "how many", "text": "rain", "style": "Sad", "rationale": "it is wet"}


def check_task(task: Task | str) -> None:
    """Checks a task, or the registered task of a name; raises AssertionError with a description of the fault.

    Checks that its metrics are registered; that it has a form for every template, and prompts contain the examples' fields,
    and their choices where answers are letters; that an answer that runs on into the next example is cut there, and any other
    stays unchanged.
    """
    checked: Task = component("tasks", task) if isinstance(task, str) else task
    expect(bool(checked.prompts), f"task {checked.name!r} has no `prompts`, so no model can answer it")
    known = load_registry().names("metrics")
    unknown = [metric for metric in checked.metrics if metric.partition(":")[0] not in known]
    expect(not unknown, f"`metrics` names {', '.join(unknown)}; there are {', '.join(known)}")
    variants = [checked]
    variants += [checked.ranked_by("letter")] if checked.letter_prompts else []
    variants += [checked.without_text()] if checked.image_prompts else []
    for variant in variants:
        for template in variant.prompts:
            _check_prompts(variant, template)


def _check_prompts(task: Task, template: str) -> None:
    demonstration, query = _example(task, 0, "first", _FIRST), _example(task, 1, "second", _SECOND)
    reserved = ("<s>", "</s>", "<image>")
    form = PromptFormat(
        "<s>", "<image>", "\n", "</s>", reserved, {task.name: task.prompts[template]}, templates=(template,)
    )
    prompt = form.prompt(task, [demonstration], query)
    for field in (one for one in task.fields if one not in ("image", "choices")):
        contains_both = all(_value(example, field) in prompt.text for example in (demonstration, query))
        expect(contains_both, f"the prompt for {template} does not say the example's {field}: {prompt.text!r}")
    label, other = answer_shown(task, query), answer_shown(task, demonstration)
    if task.lettered:
        lists_all = all(f"{letter}. {text}" in prompt.text for letter, text in zip("AB", query.choices, strict=True))
        expect(lists_all, f"the prompt for {template} does not list the example's choices: {prompt.text!r}")
    own = form.clean(task, label)
    expect(own == label, f"`clean` with the prompt for {template} changes a complete answer: {own!r}")
    if template != "completion":
        return
    following = form.prompt(task, [], replace(demonstration, image="")).text.removeprefix("<s>")
    cut = form.clean(task, f"{label}\n{following}{other}")
    expect(cut == label, f"`stop` does not end an answer where the next example begins: {cut!r}")


def _value(example: Example, field: str) -> str:
    value: str = getattr(example, field) if field in OWN_FIELDS else example.fields[field]
    return value


def _example(task: Task, number: int, label: str, texts: Mapping[str, str]) -> Example:
    further = [field for field in (*task.fields, *task.optional) if field not in OWN_FIELDS]
    return Example(
        id=number,
        image=f"/images/{number}.jpg",
        image_id=number,
        text=texts["text"],
        label=label,
        references=(label,),
        question=texts["question"],
        style=texts["style"],
        rationale=texts["rationale"],
        choices=("first", "second"),
        fields={field: f"{texts['text']}, {field}" for field in further},
    )
