"""The conformance suite of tasks."""

from __future__ import annotations

from dataclasses import replace

from icltool.components.models.shared.prompt_format import PromptFormat
from icltool.contracts import Example, Task
from icltool.plugin.manager import component, load_registry
from icltool.testing.expectations import expect

_ASKED = {"question": "what is left", "text": "a fine day", "style": "Calm"}


def check_task(task: Task | str) -> None:
    """Checks a task, or the registered task of a name; AssertionError tells.

    Checked are: its metrics are registered; it can be asked by every template, and prompts of all templates say what an example
    asks for; an answer that runs on into the next example is cut where that begins, and one that does not stays as it is.
    """
    made: Task = component("tasks", task) if isinstance(task, str) else task
    expect(bool(made.prompts), f"task {made.name!r} has no `prompts`: no model can be asked")
    known = load_registry().names("metrics")
    unknown = [metric for metric in made.metrics if metric not in known]
    expect(not unknown, f"`metrics` names {', '.join(unknown)}; there are {', '.join(known)}")
    shown, query = _example(0, "first"), replace(_example(1, "second"), question="how many", text="rain", style="Sad")
    for template, rules in made.prompts.items():
        form = PromptFormat("<s>", "<image>", "\n", "</s>", ("<s>", "</s>", "<image>"), {made.name: rules})
        prompt = form.prompt(made, [shown], query)
        for field in (one for one in made.fields if one != "image"):
            told = getattr(query, field) in prompt.text and getattr(shown, field) in prompt.text
            expect(told, f"the prompt for {template} does not say the example's {field}: {prompt.text!r}")
        own = form.clean(made, query.label)
        expect(own == query.label, f"an answer cut by the prompt for {template} is no longer itself: {own!r}")
        if template != "completion":
            continue
        following = form.prompt(made, [], replace(shown, image="")).text.removeprefix("<s>")
        cut = form.clean(made, f"{query.label}\n{following}{shown.label}")
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
