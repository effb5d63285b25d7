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

    `query` is the text between the image and the label, with {question} and {text} where the example's question and text
    go. `stop` are the words that begin the next example in a run-on answer; `cut_at_comma` drops everything from the first
    ", " on (VQA answers are short). `instruction` stands once, before the first image.
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
        return marker + filled(rules.query, self._plain(example.question), self._plain(example.text))

    def _plain(self, text: str) -> str:
        return plain_text(text, self.reserved)

    def _rules(self, task: str) -> TaskFormat:
        if task not in self.tasks:
            known = ", ".join(sorted(self.tasks))
            raise ConfigError(f"this model's prompt format has no task {task!r}", f"its tasks are {known}")
        return self.tasks[task]


def plain_text(text: str, reserved: Sequence[str]) -> str:
    """Data on one line, with special tokens broken up ("<image>" becomes "< image>")."""
    text = " ".join(text.split())
    for token in reserved:
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text


def filled(template: str, question: str, text: str) -> str:
    """`template` with {question} and {text} filled in, in one pass: braces in the data stay as they are."""
    values = {"{question}": question, "{text}": text}
    return re.sub(r"\{question\}|\{text\}", lambda found: values[found.group()], template)


#: One text, one label: the same in every format.
CLASSIFICATION = TaskFormat("Input:{text} Label:", stop=("Input", "Label"))

_VQA_QUERY, _VQA_STOP = "Question:{question} Short answer:", ("Question", "Answer", "Short")
_VQA_INSTRUCTION = "Instruction: provide an answer to the question. Use the image to answer.\n"

_FAKE, _IMAGE = "<fake_token_around_image>", "<image>"

#: What idefics and idefics2 share: one line per demonstration.
_IDEFICS_TASKS = {
    "caption": TaskFormat("Caption:", stop=("Caption",)),
    "vqa": TaskFormat(_VQA_QUERY, _VQA_STOP, instruction=_VQA_INSTRUCTION, cut_at_comma=True),
    "classification": CLASSIFICATION,
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
