"""Prompt formats: how examples become the exact text that a model reads, and how an answer is cut out of its output."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from icltool.contracts import Example, Prompt
from icltool.errors import ConfigError


@dataclass(frozen=True, repr=False)
class TaskFormat:
    """One task within a prompt format.

    `query` is the text between the image and the label, with {question}, {text} and {style} where the example's question,
    text and style go. `stop` are the words that begin the next example in a run-on answer; `cut_at_comma` drops everything
    from the first ", " on (VQA answers are short). `instruction` stands once, before the first image. `closing` is the text
    that follows each label, in demonstrations and in the target; what is left of it is dropped from the end of an answer.
    """

    query: str
    stop: tuple[str, ...]
    instruction: str = ""
    cut_at_comma: bool = False
    closing: str = ""

    def __repr__(self) -> str:
        return _representation(self, later=("closing",))


@dataclass(frozen=True, repr=False)
class PromptFormat:
    """A model family's way of writing prompts (specification of each published model's prompts).

    `start` opens the prompt, `image` stands for one image, `separator` ends a demonstration, and `end` closes the target
    of the query ("" where EOS is the pad token). Without `separated_target` a target has no separator: what comes after
    an answer is then `end` alone, which may not be empty. `reserved` are the special tokens: where data contain one
    literally it is broken up, so that no caption can inject an image or end the prompt.
    """

    start: str
    image: str
    separator: str
    end: str
    reserved: tuple[str, ...]
    tasks: Mapping[str, TaskFormat] = field(default_factory=dict)
    separated_target: bool = True

    def __post_init__(self) -> None:
        if not self.separated_target and not self.end:
            raise ValueError("a target without separator needs an `end`: else nothing says where the answer ends")

    def __repr__(self) -> str:
        tasks = {task: rules for task, rules in self.tasks.items() if LATER_TASKS.get(task) != rules}
        return _representation(replace(self, tasks=tasks), later=("separated_target",))

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """The prompt of Model.prompt: demonstrations in order, then the query; target = label, closing, separator, end."""
        rules = self._rules(task)
        parts = [self.start, rules.instruction]
        for example in demonstrations:
            parts += [self._opening(rules, example), self._plain(example.label), rules.closing, self.separator]
        parts.append(self._opening(rules, query))
        images = tuple(e.image for e in (*demonstrations, query) if e.image)
        separator = self.separator if self.separated_target else ""
        return Prompt("".join(parts), images, self._plain(query.label) + rules.closing + separator + self.end)

    def clean(self, task: str, text: str) -> str:
        """The answer within a raw continuation: up to the next example (and comma, in VQA); quotes, blanks at both ends and
        the template's closing dropped.

        Quotes go and line breaks become blanks before anything is cut: words on both sides of a break stay apart, and what
        is clean stays as it is.
        """
        rules = self._rules(task)
        answer = " ".join(text.replace('"', "").split())
        answer = re.split("|".join(re.escape(word) for word in rules.stop), answer, maxsplit=1)[0]
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

    def _rules(self, task: str) -> TaskFormat:
        if task not in self.tasks:
            known = ", ".join(sorted(self.tasks))
            raise ConfigError(f"this model's prompt format has no task {task!r}", f"its tasks are {known}")
        return self.tasks[task]


def _representation(form: Any, later: tuple[str, ...]) -> str:
    """A dataclass's usual text, but fields in `later` are told only where they differ from their default: fingerprints are
    made of it, and those of formats that were there before these fields stay as they were."""
    told = [f for f in fields(form) if f.name not in later or getattr(form, f.name) != f.default]
    return f"{type(form).__name__}({', '.join(f'{f.name}={getattr(form, f.name)!r}' for f in told)})"


def chosen_format(formats: Mapping[str, PromptFormat], template: str) -> PromptFormat:
    """The format of this template. ConfigError, with the known names, where there is none."""
    if template not in formats:
        raise ConfigError(f"unknown prompt template {template!r}", f"known: {', '.join(formats)}")
    return formats[template]


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


#: One text, one label: the same in every format.
CLASSIFICATION = TaskFormat("Input:{text} Label:", stop=("Input", "Label"))

_INFERENCE = TaskFormat("Clue:{question} Inference:", stop=("Clue", "Inference"))
#: Tasks that every format of pictures writes alike. They came later: a format's text, of which fingerprints are made, tells
#: them only where it writes them in a way of its own.
LATER_TASKS: Mapping[str, TaskFormat] = {
    "style": TaskFormat("Caption in the style {style}:", stop=("Caption",)),
    "inference": _INFERENCE,
    "inference-choice": _INFERENCE,
}

_VQA_QUERY, _VQA_STOP = "Question:{question} Short answer:", ("Question", "Answer", "Short")
_VQA_INSTRUCTION = "Instruction: provide an answer to the question. Use the image to answer.\n"

_LIVE_INSTRUCTION = "Provide an answer to the question. Use the image to answer.\n"

_FAKE, _IMAGE = "<fake_token_around_image>", "<image>"

#: What idefics and idefics2 share: one line per demonstration.
_IDEFICS_TASKS = {
    "caption": TaskFormat("Caption:", stop=("Caption",)),
    "vqa": TaskFormat(_VQA_QUERY, _VQA_STOP, instruction=_VQA_INSTRUCTION, cut_at_comma=True),
    "classification": CLASSIFICATION,
    **LATER_TASKS,
}

#: LIVE (arXiv:2406.13185): a VQA answer is closed with a full stop, and a target ends with EOS right after it.
_LIVE_TASKS = {
    "caption": TaskFormat("Caption:", stop=("Caption",)),
    "vqa": TaskFormat(_VQA_QUERY, _VQA_STOP, instruction=_LIVE_INSTRUCTION, cut_at_comma=True, closing="."),
    "classification": CLASSIFICATION,
    **LATER_TASKS,
}

#: IDEFICS (first generation): the prompt of the published Lever-LM runs. The instruction-tuned models read it too, in place
#: of their "User: … <end_of_utterance>" turns: only this one has published figures with demonstrations to compare with.
IDEFICS = PromptFormat(
    start="<s>",
    image=f"{_FAKE}{_IMAGE}{_FAKE}",
    separator="\n",
    end="</s>",
    reserved=("<s>", "</s>", "<unk>", _FAKE, _IMAGE, "<end_of_utterance>"),
    tasks=_IDEFICS_TASKS,
)

#: IDEFICS2. The image marker is one token; the model's own processor puts its features and their fake tokens there.
IDEFICS2 = PromptFormat(
    start="<s>",
    image=_IMAGE,
    separator="\n",
    end="</s>",
    reserved=("<s>", "</s>", "<unk>", _FAKE, _IMAGE, "<end_of_utterance>"),
    tasks=_IDEFICS_TASKS,
)


def _live(form: PromptFormat) -> PromptFormat:
    """The family's format with LIVE's texts: an empty line between demonstrations, and none in the target."""
    return replace(form, separator="\n\n", tasks=_LIVE_TASKS, separated_target=False)


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
    tasks={
        "vqa": TaskFormat(_VQA_QUERY, _VQA_STOP, cut_at_comma=True),
        "classification": CLASSIFICATION,
    },
)
