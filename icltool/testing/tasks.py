"""The conformance suite of tasks."""

from __future__ import annotations

from dataclasses import replace

from icltool.components.models.shared.prompt_format import PromptFormat
from icltool.contracts import Example, Task
from icltool.plugin.manager import component, load_registry
from icltool.testing.expectations import expect

_ASKED = {"question": "what is left", "text": "a fine day", "style": "Calm"}


def check_task(task: Task | str) -> None:
    """Checks a task, or the registered task of a name; raises AssertionError with a description of the fault.

    Checks that its metrics are registered; that it has a form for every template, and prompts contain the examples' fields;
    that an answer that runs on into the next example is cut there, and any other stays unchanged.
    """
    checked: Task = component("tasks", task) if isinstance(task, str) else task
    expect(bool(checked.prompts), f"task {checked.name!r} has no `prompts`, so no model can answer it")
    known = load_registry().names("metrics")
    unknown = [metric for metric in checked.metrics if metric not in known]
    expect(not unknown, f"`metrics` names {', '.join(unknown)}; there are {', '.join(known)}")
    demonstration, query = (
        _example(0, "first"),
        replace(_example(1, "second"), question="how many", text="rain", style="Sad"),
    )
    for template, rules in checked.prompts.items():
        form = PromptFormat("<s>", "<image>", "\n", "</s>", ("<s>", "</s>", "<image>"), {checked.name: rules})
        prompt = form.prompt(checked, [demonstration], query)
        for field in (one for one in checked.fields if one != "image"):
            contains_both = getattr(query, field) in prompt.text and getattr(demonstration, field) in prompt.text
            expect(contains_both, f"the prompt for {template} does not say the example's {field}: {prompt.text!r}")
        own = form.clean(checked, query.label)
        expect(own == query.label, f"`clean` with the prompt for {template} changes a complete answer: {own!r}")
        if template != "completion":
            continue
        following = form.prompt(checked, [], replace(demonstration, image="")).text.removeprefix("<s>")
        cut = form.clean(checked, f"{query.label}\n{following}{demonstration.label}")
        expect(cut == query.label, f"`stop` does not end an answer where the next example begins: {cut!r}")


def _example(number: int, label: str) -> Example:
    return Example(
        id=number,
        image=f"/images/{number}.jpg",
        image_id=number,
        text=_ASKED["text"],
        label=label,
        references=(label,),
        question=_ASKED["question"],
        style=_ASKED["style"],
    )
