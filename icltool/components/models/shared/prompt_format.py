"""Prompt formats: how examples become the exact text that a model reads, and how an answer is extracted from its output."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from icltool.components.tasks import BUILT_IN, as_registered, formats
from icltool.contracts import (
    IMAGE_MARKER,
    Example,
    Prompt,
    PromptFile,
    Task,
    TaskFormat,
    answer_shown,
    choice_letters,
    holds_images,
    task_name,
)
from icltool.contracts.task import representation
from icltool.errors import ConfigError, DataError


@dataclass(frozen=True, repr=False)
class PromptFormat:
    """A model family's way of writing prompts (specification of each published model's prompts).

    `start` opens the prompt, `image` is the marker of one image, `separator` ends a demonstration, and `end` closes the
    target of the query ("" if EOS is the pad token). Without `separated_target` a target has no separator: an answer is then
    followed by `end` alone, which may not be empty. `reserved` are the special tokens, which are broken up in data, so that
    no caption can inject an image or end the prompt. `tasks` are the forms of the built-in tasks; any other task uses the
    first of `templates` that it defines. `file` is a prompt of the user's, which has the last word; `families` are those of
    its families that this one belongs to, the most special last.
    """

    start: str
    image: str
    separator: str
    end: str
    reserved: tuple[str, ...]
    tasks: Mapping[str, TaskFormat] = field(default_factory=dict)
    separated_target: bool = True
    templates: tuple[str, ...] = ("completion",)
    file: PromptFile | None = None
    families: tuple[str, ...] = ("completion",)

    def __post_init__(self) -> None:
        if not self.separated_target and not self.end:
            raise ValueError("a target without separator needs an `end`: otherwise nothing marks the end of the answer")

    def __repr__(self) -> str:
        tasks = {task: rules for task, rules in self.tasks.items() if LATER_TASKS.get(task) != rules}
        form = representation(
            replace(self, tasks=tasks), later=("separated_target",), hidden=("templates", "file", "families")
        )
        return form if self.file is None else f"{form} {self.file.identity()!r} {self.families!r}"

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """The prompt of Model.prompt: demonstrations in order, then the query; target = label, closing, separator, end."""
        rules = self._rules(task)
        between = self.separator if rules.separator is None else rules.separator
        parts = [self.start, rules.instruction]
        for example in demonstrations:
            request = self._opening(rules, example, rules.demonstration or rules.query)
            parts += [request, answer_text(task, rules, example, self._plain), rules.closing, between]
        parts.append(self._opening(rules, query, rules.query))
        images = tuple(image for e in (*demonstrations, query) for image in e.images)
        closing = rules.closing + (between if self.separated_target else "") + self.end
        return Prompt("".join(parts), images, answer_text(task, rules, query, self._plain, target=True) + closing)

    @property
    def image_marker(self) -> str:
        """See PromptRenderer."""
        return self.image

    def clean(self, task: Task | str, text: str) -> str:
        """The answer in a raw continuation: up to the next example (in VQA also up to a comma), without quotes, blanks at
        both ends and the template's closing.

        Before anything else than a line is cut, quotes are removed and line breaks become blanks, so that words on both sides
        of a break stay separate and a clean answer stays unchanged.
        """
        rules = self._rules(task)
        first = cut(text.lstrip(), [stop for stop in rules.stop if "\n" in stop])
        answer = cut(" ".join(first.replace('"', "").split()), [stop for stop in rules.stop if "\n" not in stop])
        answer = label_part(rules, answer)
        if rules.cut_at_comma:
            answer = answer.split(", ", 1)[0]
        answer = answer.strip()
        closing = rules.closing.strip()
        while closing and answer.endswith(closing):
            answer = answer.removesuffix(closing).rstrip()
        return rules.label(answer)

    def _opening(self, rules: TaskFormat, example: Example, request: str) -> str:
        return self.image.join(segments(request, example, self._plain, rules.after_image))

    def _plain(self, text: str) -> str:
        return plain_text(text, self.reserved)

    def _rules(self, task: Task | str) -> TaskFormat:
        name = task_name(task)
        own = isinstance(task, Task) and not as_registered(task)
        rules = None if own and name in BUILT_IN else self.tasks.get(name)
        if rules is None and own and isinstance(task, Task):
            rules = task.prompt(self.templates)
        if rules is not None and self.file is not None:
            rules = self.file.applied(rules, self.families, name)
            check_images_placed(rules, [token for token in self.reserved if token in self.image])
        if rules is not None and rules.system:
            raise ConfigError(
                "the prompt has a system turn, but this model continues a text", "write the text as its instruction"
            )
        if rules is not None:
            return rules
        known = ", ".join(sorted(self.tasks))
        raise ConfigError(f"this model's prompt format has no task {name!r}", f"its tasks are {known}")


def own_prompt(form: PromptFormat, file: PromptFile | None) -> PromptFormat:
    """The format with a prompt of the user's: it changes what models that continue a text are asked, not what a published
    template asks."""
    if file is None:
        return form
    tasks = {task: _COMMON[task] for task in form.tasks}
    return replace(form, file=file, tasks=tasks, templates=("completion",))


def plain_text(text: str, reserved: Sequence[str]) -> str:
    """Data on one line, with special tokens broken up ("<image>" becomes "< image>")."""
    text = " ".join(text.split())
    for token in reserved:
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    return text


#: The place of an image in texts that are being filled in; it is taken out of data.
_PLACE = "\x00"


def segments(template: str, example: Example, plain: Callable[[str], str] = str, after_image: str = "") -> list[str]:
    """The text that `template` writes for the example, cut where its images stand: one segment before each image, and the
    last one after them. `plain` is applied to each text of the example. Each image that stands before the text is followed by
    `after_image`.

    {question}, {text}, {style} and the names of the example's `fields` are filled in, in one pass: braces in the data stay as
    they are. {choices} are the choices, one on a line, after "A. ", "B. " and so on. Images stand before the text unless the
    texts hold markers for them. Raises DataError if the numbers of markers and images differ, or if the example has no such
    text.
    """
    values = {
        **{name: partial(_placed, text, example.images_in_text, plain) for name, text in example.fields.items()},
        "question": partial(_placed, example.question, example.images_in_text, plain),
        "text": partial(_placed, example.text, example.images_in_text, plain),
        "style": partial(_placed, example.style, example.images_in_text, plain),
        "choices": partial(_listed, example, plain),
    }
    if unknown := [name for name in _NAMED.findall(template) if name not in values]:
        raise DataError(
            f"example {example.id} has no text {unknown[0]!r}, but the prompt asks for {{{unknown[0]}}}",
            f"it has {', '.join(values)}",
        )
    parts = _NAMED.sub(lambda match: values[match[1]](), template).split(_PLACE)
    count = len(example.images)
    if len(parts) == 1:
        return ["", *[after_image] * (count - 1), after_image + parts[0]] if count else parts
    if len(parts) != count + 1:
        raise DataError(
            f"example {example.id} has {count} images, but the text of its prompt has places for {len(parts) - 1}",
            "images among its choices are shown with --rank-by letter or generate, or by {choices} in a prompt of your own"
            if holds_images(example)
            else "let the prompt show every text with images in it",
        )
    return parts


_NAMED = re.compile(r"\{(\w+)\}")


def answer_text(
    task: Task | str, rules: TaskFormat, example: Example, plain: Callable[[str], str] = str, target: bool = False
) -> str:
    """The example's answer as `rules` write it, with the letter of its label if the task is `lettered`; `plain` is applied to
    label and rationale. Raises DataError for an answer with a rationale if a demonstration has none; in a `target` it may be
    missing."""
    if "{rationale}" in rules.answer and not example.rationale and not target:
        raise DataError(
            f"example {example.id} has no rationale, but the prompt writes one in each answer",
            "prepare a data set with rationales, or choose another prompt",
        )
    values = {"label": plain(rules.word(answer_shown(task, example))), "rationale": plain(example.rationale)}
    return _NAMED.sub(lambda match: values.get(match[1], match[0]), rules.answer)


def label_part(rules: TaskFormat, answer: str) -> str:
    """The part of an answer, its blanks single, in which `rules` write the label: without the words around it ("So the answer
    is"), and without the rationale before or after them."""
    answer = answer.strip()
    before, _, after = rules.answer.partition("{label}")
    begin, end = (" ".join(text.split()) for text in (_NAMED.split(before)[-1], _NAMED.split(after)[0]))
    if "{rationale}" in before:
        answer = answer.partition(begin)[2] if begin and begin in answer else answer
    else:
        answer = answer.removeprefix(begin)
    return (answer.partition(end)[0] if end and "{rationale}" in after else answer.removesuffix(end)).strip()


def cut(answer: str, stops: Sequence[str]) -> str:
    """The answer up to the first of these words."""
    return re.split("|".join(map(re.escape, stops)), answer, maxsplit=1)[0] if stops else answer


def check_images_placed(rules: TaskFormat, markers: Sequence[str]) -> None:
    """Raises ConfigError if a prompt of the user's has one of a model's `markers` of images, which stand for no image."""
    texts = (rules.system, rules.instruction, rules.query, rules.demonstration, rules.answer, rules.closing,
             rules.separator or "", rules.after_image)  # fmt: skip
    if strange := next((marker for marker in markers if any(marker in text for text in texts)), None):
        raise ConfigError(
            f"the prompt has {strange}, the model's token for an image",
            "leave it out: images stand before the request of their example",
        )


def _placed(text: str, marked: bool, plain: Callable[[str], str]) -> str:
    text = text.replace(_PLACE, "")
    return plain(text.replace(IMAGE_MARKER, _PLACE) if marked else text)


def _listed(example: Example, plain: Callable[[str], str]) -> str:
    choices = (_placed(choice, example.images_in_text, plain) for choice in example.choices)
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(choice_letters(example), choices, strict=True))


#: Tasks added after fingerprints of formats were defined. They are part of a fingerprint only if a format writes them in its
#: own way.
_COMMON = formats("completion")
LATER_TASKS: Mapping[str, TaskFormat] = {
    task: _COMMON[task] for task in ("style", "inference", "inference-choice", "multiple-choice", "open-answer")
}

_FAKE, _IMAGE = "<fake_token_around_image>", "<image>"

#: IDEFICS (first generation): the prompt of the published Lever-LM runs. The instruction-tuned models use it, too, instead
#: of their "User: … <end_of_utterance>" turns: published figures with demonstrations exist for this prompt only.
IDEFICS = PromptFormat(
    start="<s>",
    image=f"{_FAKE}{_IMAGE}{_FAKE}",
    separator="\n",
    end="</s>",
    reserved=("<s>", "</s>", "<unk>", _FAKE, _IMAGE, "<end_of_utterance>"),
    tasks=formats("lever-lm", "completion"),
    templates=("lever-lm", "completion"),
    families=("completion", "idefics"),
)

#: IDEFICS2. The image marker is one token; the model's processor expands it.
IDEFICS2 = PromptFormat(
    start="<s>",
    image=_IMAGE,
    separator="\n",
    end="</s>",
    reserved=("<s>", "</s>", "<unk>", _FAKE, _IMAGE, "<end_of_utterance>"),
    tasks=formats("lever-lm", "completion"),
    templates=("lever-lm", "completion"),
    families=("completion", "idefics"),
)


def _live(form: PromptFormat) -> PromptFormat:
    """The family's format with LIVE's texts: an empty line after each demonstration, but none in the target."""
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

#: Text-only language models. Start, end and reserved tokens are set from the model's tokenizer.
TEXT = PromptFormat(
    start="",
    image="",
    separator="\n",
    end="",
    reserved=(),
    tasks={task: _COMMON[task] for task in ("vqa", "classification", "multiple-choice", "open-answer")},
    families=("completion", "text"),
)
