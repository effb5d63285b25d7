"""Demonstrations as a conversation, written by the model's own chat template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypedDict

from jinja2 import TemplateError

from icltool.components.models.shared.prompt_format import (
    answer_text,
    check_images_placed,
    cut,
    label_part,
    plain_text,
    segments,
)
from icltool.components.tasks import BUILT_IN, task_named
from icltool.contracts import Example, Prompt, PromptFile, Task, TaskFormat
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icltool.components.models.shared.processed import Processor

Style = Literal["turns", "flat"]
Render = Callable[..., str]


class Message(TypedDict):
    """A turn of a conversation. Each part has a "type", and "text" if its type is "text"."""

    role: str
    content: list[dict[str, str]]


#: The tasks that are part of fingerprints. Later tasks are left out, so that earlier fingerprints remain valid.
_IN_FINGERPRINT = ("caption", "vqa", "classification")


@dataclass(frozen=True)
class ChatFormat:
    """How examples become a conversation.

    `render(messages, add_generation_prompt)` applies the model's template and returns text. With style "turns" each
    demonstration is a user turn (image and request) and an assistant turn (its label); with "flat" one user turn holds them
    all, one per line. `marker` is the token for one image in the text. `reserved` are the tokens that data may not contain.
    `start` is the token that the tokenizer puts in front of every text, if the template does not. `eos` ends the last answer
    if the template writes nothing after it. `template_options` are the variables of the template that `render` sets.
    """

    render: Render
    marker: str
    reserved: tuple[str, ...]
    style: Style = "turns"
    start: str = ""
    eos: str = ""
    template_options: Mapping[str, object] = field(default_factory=dict, compare=False)
    file: PromptFile | None = None

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """The prompt of Model.prompt. The target is the query's label, with the blank that the template puts before an answer
        but not at the end of a request, and with the end of an assistant turn."""
        messages = self.messages(task, demonstrations, query)
        rules = request(task, self.style, self.file)
        if self.file is not None:
            check_images_placed(rules, [self.marker])
        label = (answer_text(task, rules, query, self._plain, target=True) + rules.closing).strip()
        text = self.start + self.render(messages, True)
        whole = self.start + self.render([*messages, _turn("assistant", label)], False)
        blank, after = answer_in(text, whole, label)
        if rules.system and rules.system not in text:
            raise ConfigError(
                "the prompt has a system turn, which this model's chat template leaves out",
                "write the text as the instruction of the prompt",
            )
        images = tuple(image for e in (*demonstrations, query) for image in e.images)
        markers = text.count(self.marker)
        if markers != len(images):
            raise ConfigError(
                f"this model's chat template includes {markers} of {len(images)} images",
                "it does not support several images: choose another model, or use --shots 0",
            )
        return Prompt(text, images, blank + label + (after.rstrip() or self.eos))

    @property
    def image_marker(self) -> str:
        """See PromptRenderer."""
        return self.marker

    def clean(self, task: Task | str, text: str) -> str:
        """The answer in a raw continuation: up to the next turn (flat: the next example), without quotes and extra blanks."""
        rules = request(task, self.style, self.file)
        answer = cut(text.lstrip(), rules.stop) if self.style == "flat" else cut(text, self._turn_stops())
        answer = label_part(rules, " ".join(answer.replace('"', "").split()))
        closing = rules.closing.strip()
        while closing and answer.endswith(closing):
            answer = answer.removesuffix(closing).rstrip()
        return rules.label(answer)

    def description(self) -> str:
        """Everything that determines the prompts, as text for fingerprints."""
        empty = Example(0, "", 0, "text", "label", (), "question")
        prompt = replace(self, file=None).prompt("vqa", [empty], empty)
        requests = {task: request(task, "turns").query for task in _IN_FINGERPRINT}
        flat = {task: (request(task, "flat").query, request(task, "flat").stop) for task in _IN_FINGERPRINT}
        parts = (self.style, self.start, requests, flat, prompt.text, prompt.target)
        return repr(parts if self.file is None else (*parts, self.file.identity()))

    def messages(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> list[Message]:
        """The turns that the template renders."""
        return conversation(task, demonstrations, query, self.style, self.reserved, self.file)

    def between(self) -> str:
        """The text that the template writes between an answer and the next request."""
        question, answer = [_turn("user", "Q1Q")], _turn("assistant", "A1A")
        longer = self.render([*question, answer, _turn("user", "Q2Q")], True)
        after = answer_in(self.render(question, True), longer, "A1A")[1]
        return after[: after.index("Q2Q")]

    def check_turns(self) -> None:
        """Raises ConfigError if the template writes an answer differently in the middle of a conversation than at its end:
        demonstrations would then not have the form of the expected answer."""
        question, answer = [_turn("user", "Q1Q")], _turn("assistant", "A1A")
        longer = self.render([*question, answer, _turn("user", "Q2Q")], True)
        blank, after = answer_in(self.render(question, True), longer, "A1A")
        last = answer_in(self.render(question, True), self.render([*question, answer], False), "A1A")
        if blank != last[0] or not after.startswith(last[1].rstrip()):
            raise ConfigError(
                "this model's chat template writes the answers of demonstrations differently from the last one",
                "use --prompt-style flat, which puts demonstrations and query in one turn",
            )

    def _turn_stops(self) -> list[str]:
        """What stands between a label and the next request, as it reads once special tokens are gone."""
        between = self.between()
        for token in self.reserved:
            between = between.replace(token, "")
        return [between.rstrip()] if between.strip() else []

    def _plain(self, text: str) -> str:
        return plain_text(text, self.reserved)


def request(task: Task | str, style: Style, file: PromptFile | None = None) -> TaskFormat:
    """The request in a conversation: the text of a user turn, or with "flat" the text before each label. `file` has the last
    word. Raises ConfigError for an unknown task name."""
    if isinstance(task, str):
        if task not in BUILT_IN:
            raise ConfigError(
                f"this model's prompt format has no task {task!r}", f"its tasks are {', '.join(sorted(BUILT_IN))}"
            )
        task = task_named(task)
    own = task.prompt(("completion",) if style == "flat" else ("chat", "completion"))
    return own if file is None else file.applied(own, ("chat",), task.name)


def chat_format(
    processor: Processor,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    style: Style,
    template_options: Mapping[str, object] | None = None,
    file: PromptFile | None = None,
) -> ChatFormat:
    """The format of a model with this processor; `template_options` set variables of its template, `file` is a prompt of the
    user's. Raises ConfigError if it has no chat template, one that fails, or one without these variables."""
    marker = getattr(processor, "image_token", None)
    if not isinstance(marker, str):
        raise ConfigError(f"the processor of {name} names no image token", "choose another model")
    template = _template(processor, tokenizer)
    if template is None:
        raise ConfigError(
            f"model {name} has no chat template",
            "choose a model with its own adapter, such as idefics-9b or idefics2-8b-base",
        )

    if endless := _ENDLESS.search(" ".join(_CODE.findall(template))):
        raise ConfigError(
            f"the chat template of {name} contains {endless.group()!r}, which may never finish",
            "correct it, or choose another model",
        )
    switched_off = {name: False for name in _SWITCHES if re.search(rf"\b{name}\b", template)}
    variables = {**switched_off, **_known_variables(name, template, template_options or {})}

    write: Callable[..., str] = processor.apply_chat_template

    def render(messages: list[Message], add_generation_prompt: bool) -> str:
        try:
            return write(
                messages,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **variables,
            )
        except (TemplateError, TypeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"the chat template of {name} fails: {reason}", "correct it, or choose another model"
            ) from error

    special = [str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special]
    reserved = {token for token in (*special, marker, *_markers(processor)) if token.strip()}
    first = tokenizer("a")["input_ids"][:1]
    bos = tokenizer.bos_token or ""
    begins = bool(bos) and first == [tokenizer.bos_token_id]
    has_bos = render([_turn("user", "a")], True).startswith(bos)
    longest_first = tuple(sorted(reserved, key=lambda token: (-len(token), token)))
    form = ChatFormat(
        render,
        marker,
        longest_first,
        style,
        bos if begins and not has_bos else "",
        tokenizer.eos_token or "",
        variables,
        file,
    )
    if style == "turns":
        form.check_turns()
    return form


def conversation(
    task: Task | str,
    demonstrations: Sequence[Example],
    query: Example,
    style: Style,
    reserved: Sequence[str] = (),
    file: PromptFile | None = None,
) -> list[Message]:
    """Demonstrations and query as messages of image and text parts, in the order of the examples. `reserved` tokens in the
    data are broken up. A system turn comes first; the instruction is the beginning of the first user turn."""
    rules = request(task, style, file)
    rule, plain = rules.demonstration or rules.query, partial(plain_text, reserved=reserved)
    between = "\n" if rules.separator is None else rules.separator

    def content(template: str, example: Example, label: str) -> list[dict[str, str]]:
        *before, last = segments(template, example, plain, rules.after_image)
        parts: list[dict[str, str]] = []
        for text in before:
            parts += [*([{"type": "text", "text": text}] if text else []), {"type": "image"}]
        return [*parts, {"type": "text", "text": last + label}]

    def answer(example: Example) -> str:
        return answer_text(task, rules, example, plain) + rules.closing

    messages: list[Message] = [_turn("system", rules.system)] if rules.system else []
    opening = [{"type": "text", "text": rules.instruction}] if rules.instruction else []
    if style == "flat":
        parts = [part for e in demonstrations for part in content(rule, e, answer(e) + between)]
        return [*messages, {"role": "user", "content": _joined([*opening, *parts, *content(rules.query, query, "")])}]
    for example in demonstrations:
        messages.append({"role": "user", "content": [*opening, *content(rule, example, "")]})
        messages.append(_turn("assistant", answer(example).strip()))
        opening = []
    return [*messages, {"role": "user", "content": _joined([*opening, *content(rules.query, query, "")])}]


def ended_by(form: ChatFormat, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> ChatFormat:
    """The format for a model whose answers end with one of the tokens `ends`. If its template writes nothing after the last
    answer, the end is the token that begins the next turn, provided it is one of `ends`, else EOS."""
    between = form.between()
    places = {between.find(token): token for token in form.reserved if token in between}
    first = places[min(places)] if places else ""
    if first and tokenizer.convert_tokens_to_ids(first) in ends:
        return replace(form, eos=first)
    return form


#: The code in a template, and constructs that could produce gigabytes of text or never finish: large numbers and powers
#: (transformers' sandbox bounds ranges).
_CODE = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
_ENDLESS = re.compile(r"\b\d{7,}\b|[\w)]\s*\*\*\s*[\w(]")
#: An empty thinking block at the end of a prompt, which switches thinking off.
_NO_THOUGHTS = re.compile(r"<(\w+)>\s*</\1>\s*\Z")
#: Template variables that switch thinking off.
_SWITCHES = ("enable_thinking", "thinking")


def answer_in(text: str, whole: str, label: str) -> tuple[str, str]:
    """(the blank before the label that belongs to the answer, the text after the label), where `text` is a request for an
    answer and `whole` continues it with the answer `label`.

    White space at the border may differ; that of `text` counts. `whole` may lack an empty thinking block at the end of
    `text`. Raises ConfigError if there is anything else before the label.
    """
    border = text.rstrip()
    if not whole.startswith(border):
        border = _NO_THOUGHTS.sub("", text).rstrip()
    rest = whole[len(border) :]
    answer = rest.lstrip()
    if not whole.startswith(border) or label not in rest:
        raise ConfigError(
            "this model's chat template does not write the answer where it requests one",
            "choose a model with another template, or an instruction model rather than a reasoning model",
        )
    if not answer.startswith(label):
        before = " ".join(answer.partition(label)[0].split())[:40]
        raise ConfigError(
            f"this model's chat template writes {before!r} before an answer, which cannot be switched off",
            "choose an instruction model rather than a reasoning model",
        )
    blank, request_blank = rest[: len(rest) - len(answer)], text[len(text.rstrip()) :]
    own = blank[len(request_blank) :] if blank.startswith(request_blank) else ""
    return own, answer[len(label) :]


def _turn(role: str, text: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _joined(content: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The parts of a turn with consecutive texts merged: some templates trim each text."""
    parts: list[dict[str, str]] = []
    for part in content:
        if parts and parts[-1]["type"] == part["type"] == "text":
            parts[-1] = {"type": "text", "text": parts[-1]["text"] + part["text"]}
        else:
            parts.append(part)
    return parts


def _template(processor: Processor, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The default chat template of the processor, or else of its tokenizer."""
    for holder in (processor, tokenizer):
        template = getattr(holder, "chat_template", None)
        if isinstance(template, Mapping):
            template = template.get("default")
        if template:
            return str(template)
    return None


#: What icltool itself passes to a template, or transformers adds.
_PASSED = frozenset({"messages", "add_generation_prompt", "chat_template", "tokenize", "bos_token", "eos_token"})


def _known_variables(name: str, template: str, options: Mapping[str, object]) -> Mapping[str, object]:
    """The options, all of which are variables of the template. Raises ConfigError for any other."""
    for key in options:
        if key in _PASSED or not re.search(rf"\b{re.escape(key)}\b", " ".join(_CODE.findall(template))):
            known = sorted(set(re.findall(r"\b(\w+) is (?:not )?defined", template)) - _PASSED)
            raise ConfigError(
                f"--template-option {key}: the chat template of {name} has no such option",
                f"its options include {', '.join(known)}" if known else "leave it out",
            )
    return options


def _markers(processor: Processor) -> list[str]:
    names = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token", "fake_image_token", "start_image_token",
             "end_image_token", "vision_start_token", "vision_end_token", "global_image_tag")  # fmt: skip
    tokens = [getattr(holder, name, None) for holder in (processor, processor.tokenizer) for name in names]
    return [token for token in tokens if isinstance(token, str)]
