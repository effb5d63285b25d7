"""Prompt formats: how examples become the exact text that a model reads, and how an answer is cut out of its output."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from icltool.components.tasks import BUILT_IN, formats
from icltool.contracts import Example, Prompt, Task, TaskFormat, task_name
from icltool.contracts.task import representation
from icltool.errors import ConfigError


@dataclass(frozen=True, repr=False)
class PromptFormat:
    """A model family's way of writing prompts (specification of each published model's prompts).

    `start` opens the prompt, `image` stands for one image, `separator` ends a demonstration, and `end` closes the target
    of the query ("" where EOS is the pad token). Without `separated_target` a target has no separator: what comes after
    an answer is then `end` alone, which may not be empty. `reserved` are the special tokens: where data contain one
    literally it is broken up, so that no caption can inject an image or end the prompt. `tasks` are the ways to ask for the
    built-in tasks; of any other it is that of the first of `templates` that the task knows.
    """

    start: str
    image: str
    separator: str
    end: str
    reserved: tuple[str, ...]
    tasks: Mapping[str, TaskFormat] = field(default_factory=dict)
    separated_target: bool = True
    templates: tuple[str, ...] = ("completion",)

    def __post_init__(self) -> None:
        if not self.separated_target and not self.end:
            raise ValueError("a target without separator needs an `end`: else nothing says where the answer ends")

    def __repr__(self) -> str:
        tasks = {task: rules for task, rules in self.tasks.items() if LATER_TASKS.get(task) != rules}
        return representation(replace(self, tasks=tasks), later=("separated_target",), hidden=("templates",))

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """The prompt of Model.prompt: demonstrations in order, then the query; target = label, closing, separator, end."""
        rules = self._rules(task)
        parts = [self.start, rules.instruction]
        for example in demonstrations:
            parts += [self._opening(rules, example), self._plain(example.label), rules.closing, self.separator]
        parts.append(self._opening(rules, query))
        images = tuple(e.image for e in (*demonstrations, query) if e.image)
        separator = self.separator if self.separated_target else ""
        return Prompt("".join(parts), images, self._plain(query.label) + rules.closing + separator + self.end)

    def clean(self, task: Task | str, text: str) -> str:
        """The answer within a raw continuation: up to the next example (and comma, in VQA); quotes, blanks at both ends and
        the template's closing dropped.

        Quotes go and line breaks become blanks before anything is cut: words on both sides of a break stay apart, and what
        is clean stays as it is.
        """
        rules = self._rules(task)
        answer = " ".join(text.replace('"', "").split())
        if rules.stop:
            answer = re.split("|".join(map(re.escape, rules.stop)), answer, maxsplit=1)[0]
        if rules.cut_at_comma:
            answer = answer.split(", ", 1)[0]
        answer = answer.strip()
        while rules.closing and answer.endswith(rules.closing):
            answer = answer.removesuffix(rules.closing).rstrip()
        return answer

    def _opening(self, rules: TaskFormat, example: Example) -> str:
        marker = self.image if example.image else ""
        return marker + filled(rules.query, *map(self._plain, (example.question, example.text, example.style)))

    def _plain(self, text: str) -> str:
        return plain_text(text, self.reserved)

    def _rules(self, task: Task | str) -> TaskFormat:
        name = task_name(task)
        if name in self.tasks:
            return self.tasks[name]
        if isinstance(task, Task) and name not in BUILT_IN:
            return task.prompt(self.templates)
        known = ", ".join(sorted(self.tasks))
        raise ConfigError(f"this model's prompt format has no task {name!r}", f"its tasks are {known}")


def plain_text(text: str, reserved: Sequence[str]) -> str:
    """Data on one line, with special tokens broken up ("<image>" becomes "< image>")."""
    text = " ".join(text.split())
    for token in reserved:
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text


def filled(template: str, question: str, text: str, style: str = "") -> str:
    """`template` with {question}, {text} and {style} filled in, in one pass: braces in the data stay as they are."""
    values = {"{question}": question, "{text}": text, "{style}": style}
    return re.sub(r"\{question\}|\{text\}|\{style\}", lambda found: values[found.group()], template)


#: Tasks that came later than the fingerprints of formats, which tell them only where a format writes them in a way of its
#: own.
_COMMON = formats("completion")
LATER_TASKS: Mapping[str, TaskFormat] = {task: _COMMON[task] for task in ("style", "inference", "inference-choice")}

_FAKE, _IMAGE = "<fake_token_around_image>", "<image>"

#: IDEFICS (first generation): the prompt of the published Lever-LM runs. The instruction-tuned models read it too, in place
#: of their "User: … <end_of_utterance>" turns: only this one has published figures with demonstrations to compare with.
IDEFICS = PromptFormat(
    start="<s>",
    image=f"{_FAKE}{_IMAGE}{_FAKE}",
    separator="\n",
    end="</s>",
    reserved=("<s>", "</s>", "<unk>", _FAKE, _IMAGE, "<end_of_utterance>"),
    tasks=formats("lever-lm", "completion"),
    templates=("lever-lm", "completion"),
)

#: IDEFICS2. The image marker is one token; the model's own processor puts its features and their fake tokens there.
IDEFICS2 = PromptFormat(
    start="<s>",
    image=_IMAGE,
    separator="\n",
    end="</s>",
    reserved=("<s>", "</s>", "<unk>", _FAKE, _IMAGE, "<end_of_utterance>"),
    tasks=formats("lever-lm", "completion"),
    templates=("lever-lm", "completion"),
)


def _live(form: PromptFormat) -> PromptFormat:
    """The family's format with LIVE's texts: an empty line between demonstrations, and none in the target."""
    return replace(
        form,
        separator="\n\n",
        tasks=formats("live", "completion"),
        templates=("live", "completion"),
        separated_target=False,
    )


#: By the name of the template (option `template` of the adapters).
IDEFICS_FORMATS: Mapping[str, PromptFormat] = {"lever-lm": IDEFICS, "live": _live(IDEFICS)}
IDEFICS2_FORMATS: Mapping[str, PromptFormat] = {"lever-lm": IDEFICS2, "live": _live(IDEFICS2)}

#: Text-only language models. Start, end and reserved tokens are those of the model's tokenizer.
TEXT = PromptFormat(
    start="",
    image="",
    separator="\n",
    end="",
    reserved=(),
    tasks={task: _COMMON[task] for task in ("vqa", "classification")},
)
