"""Demonstrations as a conversation, written by the model's own chat template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypedDict

from jinja2 import TemplateError

from icltool.components.models.shared.prompt_format import filled, plain_text
from icltool.components.tasks import BUILT_IN, task_named
from icltool.contracts import Example, Prompt, Task, TaskFormat
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icltool.components.models.shared.processed import Processor

Style = Literal["turns", "flat"]
Render = Callable[..., str]


class Message(TypedDict):
    """A turn of a conversation, of parts with "type", and "text" where that is "text"."""

    role: str
    content: list[dict[str, str]]


#: The tasks that fingerprints tell: those that came later are left out, so that those of before stay.
_TOLD = ("caption", "vqa", "classification")


@dataclass(frozen=True)
class ChatFormat:
    """How examples become a conversation.

    `render(messages, add_generation_prompt)` is the model's template, as text. With style "turns" each demonstration is a
    user turn (image and request) and an assistant turn (its label); with "flat" all stand in one user turn, one per line.
    `marker` is the token that stands for one image in the text. `reserved` are the tokens that data may not contain;
    `start` is put in front where the tokenizer begins every text with it and the template does not. `eos` ends the last answer
    where the template writes nothing after it.
    """

    render: Render
    marker: str
    reserved: tuple[str, ...]
    style: Style = "turns"
    start: str = ""
    eos: str = ""

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """The prompt of Model.prompt. The target is the blank that the template writes before an answer where it asks for one
        without, the query's label, and what ends an assistant's turn."""
        messages = self._messages(task, demonstrations, query)
        label = self._plain(query.label)
        text = self.start + self.render(messages, True)
        whole = self.start + self.render([*messages, _said("assistant", label)], False)
        blank, after = answer_in(text, whole, label)
        images = tuple(e.image for e in (*demonstrations, query) if e.image)
        shown = text.count(self.marker)
        if shown != len(images):
            raise ConfigError(
                f"this model's chat template writes {shown} of {len(images)} images",
                "it cannot show several images: another model, or --shots 0, is needed",
            )
        return Prompt(text, images, blank + label + (after.rstrip() or self.eos))

    def clean(self, task: Task | str, text: str) -> str:
        """The answer within a raw continuation: up to the next turn (flat: the next example), quotes and blanks dropped."""
        stops = request(task, self.style).stop if self.style == "flat" else self._turn_stops()
        answer = re.split("|".join(re.escape(stop) for stop in stops), text, maxsplit=1)[0] if stops else text
        return " ".join(answer.replace('"', "").split())

    def description(self) -> str:
        """What decides the prompts, as a text for fingerprints."""
        empty = Example(0, "", 0, "text", "label", (), "question")
        shown = self.prompt("vqa", [empty], empty)
        requests = {task: request(task, "turns").query for task in _TOLD}
        flat = {task: (request(task, "flat").query, request(task, "flat").stop) for task in _TOLD}
        return repr((self.style, self.start, requests, flat, shown.text, shown.target))

    def _messages(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> list[Message]:
        return conversation(task, demonstrations, query, self.style, self.reserved)

    def between(self) -> str:
        """What the template writes between an answer and the next request."""
        asked, answered = [_said("user", "Q1Q")], _said("assistant", "A1A")
        longer = self.render([*asked, answered, _said("user", "Q2Q")], True)
        after = answer_in(self.render(asked, True), longer, "A1A")[1]
        return after[: after.index("Q2Q")]

    def check_turns(self) -> None:
        """Raises ConfigError where the template does not write an answer in the middle of a conversation as it does at its end:
        then demonstrations would not show the model what is asked of it."""
        asked, answered = [_said("user", "Q1Q")], _said("assistant", "A1A")
        longer = self.render([*asked, answered, _said("user", "Q2Q")], True)
        blank, after = answer_in(self.render(asked, True), longer, "A1A")
        last = answer_in(self.render(asked, True), self.render([*asked, answered], False), "A1A")
        if blank != last[0] or not after.startswith(last[1].rstrip()):
            raise ConfigError(
                "this model's chat template writes the answers of demonstrations otherwise than the last one",
                "`--prompt-style flat` puts demonstrations and question in one turn",
            )

    def _turn_stops(self) -> list[str]:
        """What stands between a label and the next request, as it reads once special tokens are gone."""
        between = self.between()
        for token in self.reserved:
            between = between.replace(token, "")
        return [between.rstrip()] if between.strip() else []

    def _plain(self, text: str) -> str:
        return plain_text(text, self.reserved)


def request(task: Task | str, style: Style) -> TaskFormat:
    """How a conversation asks: what a user's turn says beside the image, or, "flat", what stands before each label. ConfigError
    for a task that is not known by name."""
    if isinstance(task, str):
        if task not in BUILT_IN:
            raise ConfigError(
                f"this model's prompt format has no task {task!r}", f"its tasks are {', '.join(sorted(BUILT_IN))}"
            )
        task = task_named(task)
    return task.prompt(("completion",) if style == "flat" else ("chat", "completion"))


def chat_format(processor: Processor, tokenizer: PreTrainedTokenizerBase, name: str, style: Style) -> ChatFormat:
    """The format of a model with this processor. Raises ConfigError where it has no chat template, or one that fails."""
    marker = getattr(processor, "image_token", None)
    if not isinstance(marker, str):
        raise ConfigError(f"model {name} does not say which token stands for an image", "it cannot show several images")
    template = _template(processor, tokenizer)
    if template is None:
        raise ConfigError(
            f"model {name} has no chat template",
            "models without one are read by adapters of their own, such as idefics-9b and idefics2-8b-base",
        )

    if found := _ENDLESS.search(" ".join(_CODE.findall(template))):
        raise ConfigError(
            f"the chat template of {name} holds {found.group()!r}: no conversation needs that, and it may never end",
            "mend it, or choose another model",
        )
    switched_off = {name: False for name in _SWITCHES if re.search(rf"\b{name}\b", template)}

    write: Callable[..., str] = processor.apply_chat_template

    def render(messages: list[Message], add_generation_prompt: bool) -> str:
        try:
            return write(
                messages,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **switched_off,
            )
        except (TemplateError, TypeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"the chat template of {name} fails: {reason}", "mend it, or choose another model"
            ) from error

    special = [str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special]
    reserved = {token for token in (*special, marker, *_markers(processor)) if token.strip()}
    first = tokenizer("a")["input_ids"][:1]
    bos = tokenizer.bos_token or ""
    begins = bool(bos) and first == [tokenizer.bos_token_id]
    written = render([_said("user", "a")], True).startswith(bos)
    longest_first = tuple(sorted(reserved, key=lambda token: (-len(token), token)))
    made = ChatFormat(
        render, marker, longest_first, style, bos if begins and not written else "", tokenizer.eos_token or ""
    )
    if style == "turns":
        made.check_turns()
    return made


def conversation(
    task: Task | str, demonstrations: Sequence[Example], query: Example, style: Style, reserved: Sequence[str] = ()
) -> list[Message]:
    """Demonstrations and query as messages with image parts and text parts, the images in the examples' order. `reserved`
    tokens are broken up in what comes from the data."""

    asked = request(task, style).query

    def content(example: Example, label: str) -> list[dict[str, str]]:
        text = filled(asked, *(plain_text(t, reserved) for t in (example.question, example.text, example.style)))
        image = [{"type": "image"}] if example.image else []
        return [*image, {"type": "text", "text": text + label}]

    if style == "flat":
        shown = [part for e in demonstrations for part in content(e, f"{plain_text(e.label, reserved)}\n")]
        return [{"role": "user", "content": _joined([*shown, *content(query, "")])}]
    messages: list[Message] = []
    for example in demonstrations:
        messages.append({"role": "user", "content": content(example, "")})
        messages.append(_said("assistant", plain_text(example.label, reserved)))
    return [*messages, {"role": "user", "content": content(query, "")}]


def ended_by(form: ChatFormat, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> ChatFormat:
    """The format for a model whose answers end with one of the tokens `ends`: where its template writes nothing after the last
    answer, that is the token that it begins the next turn with, if it is one of them, else EOS."""
    between = form.between()
    places = {between.find(token): token for token in form.reserved if token in between}
    first = places[min(places)] if places else ""
    if first and tokenizer.convert_tokens_to_ids(first) in ends:
        return replace(form, eos=first)
    return form


#: The code in a template, and what in it would make a text of gigabytes, or take for ever: large numbers and powers (ranges
#: are bounded by transformers' sandbox).
_CODE = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
_ENDLESS = re.compile(r"\b\d{7,}\b|[\w)]\s*\*\*\s*[\w(]")
#: An empty block of thoughts, by which thinking is switched off at the end of a prompt.
_NO_THOUGHTS = re.compile(r"<(\w+)>\s*</\1>\s*\Z")
#: Variables by which templates are told that there shall be no thinking.
_SWITCHES = ("enable_thinking", "thinking")


def answer_in(text: str, whole: str, label: str) -> tuple[str, str]:
    """(the blank before the label that is part of the answer, what follows the label) where `whole` goes on from `text`, which
    asks for an answer, with the answer `label`.

    White space at the border may differ: what `text` ends with counts. An empty block of thoughts at its end is none in
    `whole`, or the same. Raises ConfigError where something else stands before the label.
    """
    border = text.rstrip()
    if not whole.startswith(border):
        border = _NO_THOUGHTS.sub("", text).rstrip()
    rest = whole[len(border) :]
    written = rest.lstrip()
    if not whole.startswith(border) or label not in rest:
        raise ConfigError(
            "this model's chat template does not write an answer where it asks for one",
            "a model with another template, or one made for instructions rather than reasoning, is needed",
        )
    if not written.startswith(label):
        before = " ".join(written.partition(label)[0].split())[:40]
        raise ConfigError(
            f"this model's chat template writes {before!r} before an answer, and has no switch against it",
            "a model that is made for instructions rather than reasoning is needed",
        )
    blank, asked = rest[: len(rest) - len(written)], text[len(text.rstrip()) :]
    own = blank[len(asked) :] if blank.startswith(asked) else ""
    return own, written[len(label) :]


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _joined(content: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The parts of a turn, texts that follow one another as one: some templates trim each text."""
    found: list[dict[str, str]] = []
    for part in content:
        if found and found[-1]["type"] == part["type"] == "text":
            found[-1] = {"type": "text", "text": found[-1]["text"] + part["text"]}
        else:
            found.append(part)
    return found


def _template(processor: Processor, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template for plain conversations, of the processor or else of its tokenizer."""
    for holder in (processor, tokenizer):
        found = getattr(holder, "chat_template", None)
        if isinstance(found, Mapping):
            found = found.get("default")
        if found:
            return str(found)
    return None


def _markers(processor: Processor) -> list[str]:
    names = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token", "fake_image_token", "start_image_token",
             "end_image_token", "vision_start_token", "vision_end_token", "global_image_tag")  # fmt: skip
    found = [getattr(holder, name, None) for holder in (processor, processor.tokenizer) for name in names]
    return [token for token in found if isinstance(token, str)]
