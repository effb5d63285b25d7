"""Prompt formats: how examples become the exact text that a model reads, and how an answer is cut out of its output."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from icltool.contracts import Example, Prompt
from icltool.errors import ConfigError


@dataclass(frozen=True)
class TaskFormat:
    """One task within a prompt format.

    `query` is the text between the image and the label, with {question} where the question goes. `stop` are the words
    that begin the next example in a run-on answer; `cut_at_comma` drops everything from the first ", " on (VQA answers
    are short). `instruction` stands once, before the first image.
    """

    query: str
    stop: tuple[str, ...]
    instruction: str = ""
    cut_at_comma: bool = False


@dataclass(frozen=True)
class PromptFormat:
    """A model family's way of writing prompts (specification of each published model's prompts).

    `start` opens the prompt, `image` stands for one image, `separator` ends a demonstration, and `end` closes the target
    of the query ("" where EOS is the pad token). `reserved` are the special tokens: where data contain one literally it
    is broken up, so that no caption can inject an image or end the prompt.
    """

    start: str
    image: str
    separator: str
    end: str
    reserved: tuple[str, ...]
    tasks: Mapping[str, TaskFormat] = field(default_factory=dict)

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """The prompt of Model.prompt: demonstrations in order, then the query; target = label, separator, end."""
        rules = self._rules(task)
        parts = [self.start, rules.instruction]
        for example in demonstrations:
            parts += [self._opening(rules, example), self._plain(example.label), self.separator]
        parts.append(self._opening(rules, query))
        images = tuple(e.image for e in (*demonstrations, query) if e.image)
        return Prompt("".join(parts), images, self._plain(query.label) + self.separator + self.end)

    def clean(self, task: str, text: str) -> str:
        """The answer within a raw continuation: up to the next example (and comma, in VQA), quotes and blanks dropped.

        Line breaks become blanks before anything is cut, so that words on both sides of one stay apart.
        """
        rules = self._rules(task)
        answer = re.split("|".join(re.escape(word) for word in rules.stop), text, maxsplit=1)[0]
        answer = " ".join(answer.replace('"', "").split())
        if rules.cut_at_comma:
            answer = answer.split(", ", 1)[0]
        return answer.strip()

    def _opening(self, rules: TaskFormat, example: Example) -> str:
        marker = self.image if example.image else ""
        return marker + rules.query.replace("{question}", self._plain(example.question))

    def _plain(self, text: str) -> str:
        """Data on one line, with special tokens broken up ("<image>" becomes "< image>")."""
        text = " ".join(text.split())
        for token in self.reserved:
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def _rules(self, task: str) -> TaskFormat:
        if task not in self.tasks:
            known = ", ".join(sorted(self.tasks))
            raise ConfigError(f"this model's prompt format has no task {task!r}", f"its tasks are {known}")
        return self.tasks[task]


_FAKE, _IMAGE = "<fake_token_around_image>", "<image>"

#: IDEFICS (first generation), base model: the prompt of the published Lever-LM runs.
IDEFICS = PromptFormat(
    start="<s>",
    image=f"{_FAKE}{_IMAGE}{_FAKE}",
    separator="\n",
    end="</s>",
    reserved=("<s>", "</s>", "<unk>", _FAKE, _IMAGE, "<end_of_utterance>"),
    tasks={
        "caption": TaskFormat("Caption:", stop=("Caption",)),
        "vqa": TaskFormat(
            "Question:{question} Short answer:",
            stop=("Question", "Answer", "Short"),
            instruction="Instruction: provide an answer to the question. Use the image to answer.\n",
            cut_at_comma=True,
        ),
    },
)
