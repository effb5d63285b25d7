"""Prompts of captioners for each task, with captions cleaned as in their published training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from icltool.components.models.shared.prompt_format import plain_text, segments
from icltool.components.tasks import BUILT_IN, formats, task_named
from icltool.contracts import Example, Prompt, Task
from icltool.errors import ConfigError

#: Words kept of a caption, at most.
MOST_WORDS = 50

#: The text between image and label, by built-in task, with {question} (a question, or the clue of an inference) and
#: {style}.
QUERIES: Mapping[str, str] = {task: form.query for task, form in formats("captioner").items()}


def clean_caption(text: str, most_words: int = MOST_WORDS) -> str:
    """A caption as in the training of BLIP and BLIP-2: lower case, each of . ! " ( ) * # : ; ~ a blank, single blanks, the
    first `most_words` words."""
    return " ".join(re.sub(r'[.!"()*#:;~]', " ", text.lower()).split()[:most_words])


@dataclass(frozen=True)
class CaptionerFormat:
    """A family's way of writing prompts.

    `image` is the marker of one image. `start` opens the text, after the first image (its features come before the start
    token in these models); `closing` ends it (an encoder's end token). `blank` separates a query from its label. `separator`
    ends a demonstration, `end` a target. An answer is cut at the regular expression `cut`. `reserved` are special tokens,
    which are broken up in data. With `one_image` demonstrations are text only.
    """

    image: str
    start: str
    closing: str
    blank: str
    separator: str
    end: str
    cut: str
    reserved: tuple[str, ...]
    one_image: bool = False
    queries: Mapping[str, str] = field(default_factory=lambda: QUERIES)

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """See Model.prompt."""
        task = self._known(task)
        examples = [e.without_images() for e in demonstrations] if self.one_image else list(demonstrations)
        parts = []
        for example in examples:
            parts += [self._opening(task, example), self.blank, self._label(task, example.label), self.separator]
        parts.append(self._opening(task, query))
        images = tuple(image for e in (*examples, query) for image in e.images)
        return Prompt(self._text("".join(parts)), images, self.blank + self._label(task, query.label) + self.end)

    @property
    def image_marker(self) -> str:
        """See PromptRenderer."""
        return self.image

    def plain(self, text: str, image: str, target: str) -> Prompt:
        """See SupportsFineTuning.plain_prompt."""
        parts = self.image + plain_text(text, self.reserved)
        return Prompt(self._text(parts), (image,), self.blank + plain_text(target, self.reserved) + self.end)

    def clean(self, task: Task | str, text: str) -> str:
        """See Model.clean."""
        answer = re.split(self.cut, text.replace('"', "").strip(), maxsplit=1)[0]
        if stops := self._known(task).prompt(("captioner",)).stop:
            answer = re.split("|".join(map(re.escape, stops)), answer, maxsplit=1)[0]
        return " ".join(answer.split())

    def instruction(self, segment: str) -> str:
        """The query within the text after an image: a Q-Former that reads instructions must not see answers."""
        for query in dict.fromkeys(self.queries.values()):
            parts = [re.escape(part) for part in re.split(r"\{\w+\}", query)]
            if match := re.match(".*?".join(parts), segment.lstrip(), flags=re.DOTALL):
                return match.group()
        return segment.strip()

    def _text(self, parts: str) -> str:
        at = len(self.image) if self.image and parts.startswith(self.image) else 0
        return parts[:at] + self.start + parts[at:] + self.closing

    def _known(self, task: Task | str) -> Task:
        name = task if isinstance(task, str) else task.name
        if name not in self.queries and (isinstance(task, str) or name in BUILT_IN):
            known = ", ".join(sorted(self.queries))
            raise ConfigError(f"this model's prompt format has no task {name!r}", f"its tasks are {known}")
        return task_named(task) if isinstance(task, str) else task

    def _opening(self, task: Task, example: Example) -> str:
        template = self.queries.get(task.name) or task.prompt(("captioner",)).query
        return self.image.join(segments(template, example, partial(plain_text, reserved=self.reserved)))

    def _label(self, task: Task, label: str) -> str:
        return plain_text(clean_caption(label) if task.sentences else label, self.reserved)
