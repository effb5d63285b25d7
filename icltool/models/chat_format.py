"""Demonstrations as a conversation, written by the model's own chat template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from icltool.contracts import Example, Prompt
from icltool.errors import ConfigError
from icltool.models.prompt_format import LATER_TASKS, filled, plain_text

Style = Literal["turns", "flat"]
Render = Callable[..., str]

_INFERENCE = "Answer in one short sentence: what does this clue in the image let you infer? {question}"
#: What the user asks beside the image (with {question}, {text} and {style} filled in); `flat` gives what stands before a
#: label.
REQUESTS: dict[str, str] = {
    "caption": "Describe the image in one short sentence.",
    "vqa": "{question} Answer the question with a word or a short phrase.",
    "classification": "{text} Answer with the label only.",
    "style": "Describe the image in one short sentence, in the style {style}.",
    "inference": _INFERENCE,
    "inference-choice": _INFERENCE,
}
FLAT: dict[str, tuple[str, tuple[str, ...]]] = {
    "caption": ("Caption:", ("Caption",)),
    "vqa": ("Question:{question} Short answer:", ("Question", "Answer", "Short")),
    "classification": ("Input:{text} Label:", ("Input", "Label")),
    **{task: (rules.query, rules.stop) for task, rules in LATER_TASKS.items()},
}


@dataclass(frozen=True)
class ChatFormat:
    """How examples become a conversation.

    `render(messages, add_generation_prompt)` is the model's template, as text. With style "turns" each demonstration is a
    user turn (image and request) and an assistant turn (its label); with "flat" all stand in one user turn, one per line.
    `marker` is the token that stands for one image in the text. `reserved` are the tokens that data may not contain;
    `start` is put in front where the tokenizer begins every text with it and the template does not.
    """

    render: Render
    marker: str
    reserved: tuple[str, ...]
    style: Style = "turns"
    start: str = ""
    eos: str = ""

    def prompt(self, task: str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """The prompt of Model.prompt. The target is the query's label and what ends an assistant's turn, without the
        white space that the template writes after that."""
        messages = self._messages(task, demonstrations, query)
        label = self._plain(query.label)
        text = self.start + self.render(messages, True)
        whole = self.start + self.render([*messages, _said("assistant", label)], False)
        if not whole.startswith(text):
            raise ConfigError(
                "this model's chat template does not write an answer where it asks for one",
                "a model with another template, or one made for instructions rather than reasoning, is needed",
            )
        images = tuple(e.image for e in (*demonstrations, query) if e.image)
        shown = text.count(self.marker)
        if shown != len(images):
            raise ConfigError(
                f"this model's chat template writes {shown} of {len(images)} images",
                "it cannot show several images: another model, or --shots 0, is needed",
            )
        return Prompt(text, images, self._ended(whole[len(text) :], label))

    def clean(self, task: str, text: str) -> str:
        """The answer within a raw continuation: up to the next turn (flat: the next example), quotes and blanks dropped."""
        self._known(task)
        stops = FLAT[task][1] if self.style == "flat" else self._turn_stops()
        answer = re.split("|".join(re.escape(stop) for stop in stops), text, maxsplit=1)[0] if stops else text
        return " ".join(answer.replace('"', "").split())

    def description(self) -> str:
        """What decides the prompts, as a text for fingerprints. Tasks that came later are not told, so that those of before
        stay."""
        empty = Example(0, "", 0, "text", "label", (), "question")
        shown = self.prompt("vqa", [empty], empty)
        requests = {task: text for task, text in REQUESTS.items() if task not in LATER_TASKS}
        flat = {task: rules for task, rules in FLAT.items() if task not in LATER_TASKS}
        return repr((self.style, self.start, requests, flat, shown.text, shown.target))

    def _messages(self, task: str, demonstrations: Sequence[Example], query: Example) -> list[dict[str, Any]]:
        self._known(task)
        if self.style == "flat":
            content: list[dict[str, str]] = []
            for example in demonstrations:
                content += self._content(FLAT[task][0], example, f"{self._plain(example.label)}\n")
            return [{"role": "user", "content": [*content, *self._content(FLAT[task][0], query, "")]}]
        messages = []
        for example in demonstrations:
            messages.append({"role": "user", "content": self._content(REQUESTS[task], example, "")})
            messages.append(_said("assistant", self._plain(example.label)))
        return [*messages, {"role": "user", "content": self._content(REQUESTS[task], query, "")}]

    def _content(self, template: str, example: Example, label: str) -> list[dict[str, str]]:
        request = filled(template, *map(self._plain, (example.question, example.text, example.style)))
        image = [{"type": "image"}] if example.image else []
        return [*image, {"type": "text", "text": request + label}]

    def _ended(self, target: str, label: str) -> str:
        ended = target.rstrip()
        if ended.strip() == label:  # the template writes nothing after the last answer
            return ended + self.eos
        return ended

    def _turn_stops(self) -> list[str]:
        """What stands between a label and the next request, as it reads once special tokens are gone."""
        first, second = Example(0, "", 0, "0", "A1A", (), "Q1Q"), Example(0, "", 0, "0", "A2A", (), "Q2Q")
        text = self.render(self._messages("vqa", [first], second), True)
        between = text[text.index("A1A") + 3 : text.index("Q2Q")]
        for token in self.reserved:
            between = between.replace(token, "")
        return [between.rstrip()] if between.strip() else []

    def _plain(self, text: str) -> str:
        return plain_text(text, self.reserved)

    def _known(self, task: str) -> None:
        if task not in REQUESTS:
            known = ", ".join(sorted(REQUESTS))
            raise ConfigError(f"this model's prompt format has no task {task!r}", f"its tasks are {known}")


def chat_format(processor: Any, tokenizer: Any, name: str, style: Style) -> ChatFormat:
    """The format of a model with this processor. Raises ConfigError where it has no chat template, one that fails, or an
    unknown style."""
    from jinja2 import TemplateError

    if style not in ("turns", "flat"):
        raise ConfigError(f"unknown style {style!r}", "known: turns, flat")
    marker = getattr(processor, "image_token", None)
    if not isinstance(marker, str):
        raise ConfigError(f"model {name} does not say which token stands for an image", "it cannot show several images")
    template = _template(processor, tokenizer)
    if template is None:
        raise ConfigError(
            f"model {name} has no chat template",
            "models without one are read by adapters of their own, such as idefics-9b and idefics2-8b-base",
        )

    def render(messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        try:
            text: str = processor.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (TemplateError, TypeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"the chat template of {name} fails: {reason}", "mend it, or choose another model"
            ) from error
        return text

    special = [str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special]
    reserved = {token for token in (*special, marker, *_markers(processor)) if token.strip()}
    first = tokenizer("a")["input_ids"][:1]
    bos = tokenizer.bos_token or ""
    begins = bool(bos) and first == [tokenizer.bos_token_id]
    written = render([_said("user", "a")], True).startswith(bos)
    longest_first = tuple(sorted(reserved, key=lambda token: (-len(token), token)))
    return ChatFormat(
        render, marker, longest_first, style, bos if begins and not written else "", tokenizer.eos_token or ""
    )


def _said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _template(processor: Any, tokenizer: Any) -> str | None:
    """The template for plain conversations, of the processor or else of its tokenizer."""
    for holder in (processor, tokenizer):
        found = getattr(holder, "chat_template", None)
        if isinstance(found, Mapping):
            found = found.get("default")
        if found:
            return str(found)
    return None


def _markers(processor: Any) -> list[str]:
    names = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token", "fake_image_token", "start_image_token",
             "end_image_token", "vision_start_token", "vision_end_token", "global_image_tag")  # fmt: skip
    found = [getattr(holder, name, None) for holder in (processor, processor.tokenizer) for name in names]
    return [token for token in found if isinstance(token, str)]
