"""OFA's prompts for each task, and the texts that it answers.

The questions are those of the public code: ` what does the image describe?` for captions, a question as it is for VQA. The
public training deleted all punctuation from captions, single blanks were left between words, and the text of a target began
with a blank. Its files of captions are in lower case, as the vocabulary of the published models' captions is; captions are
put into lower case here (`lower_case`), which its successor OFASys does as well.
"""

from __future__ import annotations

import re
import string
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icltool import ConfigError, DataError, Example, IclWarning, Prompt, Task, segments, task_name
from icltool_ofa.tokenizer import code_token

START, END = "<s>", "</s>"
CAPTION = " what does the image describe?"
STYLE_PROMPT = " what does the image describe? reply in personality {}."

_INFERENCE = " clue: {} inference:"
#: By task: the question, with {} for what an example asks (style: see `OFAFormat.style_prompt`).
_QUERIES: Mapping[str, str] = {
    "caption": CAPTION,
    "vqa": " {}",
    "inference": _INFERENCE,
    "inference-choice": _INFERENCE,
}
#: Whose prompts of other tasks are read.
_TEMPLATES = ("ofa", "captioner")
#: Tasks whose labels are sentences about an image.
_SENTENCES = ("caption", "style", "inference", "inference-choice")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
#: Tokens with a meaning of their own: data that hold one have it broken up.
_RESERVED = re.compile(r"<(?=(?:s|/s|pad|unk|mask|code_\d+|bin_\d+)>)")

#: How the question whether a caption and a style belong to an image ends.
_NAMED = re.compile(r"(.* in personality) (.+)\?", re.DOTALL)


def _asks(task: Task | str) -> bool:
    """Whether a task that is not among those above defines its own prompt."""
    return isinstance(task, Task) and any(t in task.prompts for t in _TEMPLATES)


def plain(text: str) -> str:
    """Data on one line, without special tokens ("</s>" becomes "< /s>")."""
    return _RESERVED.sub("< ", " ".join(text.split()))


def clean_caption(text: str, lower_case: bool = True) -> str:
    """A caption as in the public training: without punctuation, with single blanks, and in lower case."""
    words = " ".join(text.translate(_PUNCTUATION).split())
    return words.lower() if lower_case else words


def clean_question(text: str) -> str:
    """A question as in the public training: lower case, no punctuation before the first word, blanks for hyphens and
    slashes, a question mark at the end."""
    words = plain(text.lower().lstrip(",.!?*#:;~").replace("-", " ").replace("/", " "))
    return words if words.endswith("?") else f"{words}?"


@dataclass(frozen=True)
class OFAFormat:
    """The prompt format: one text, with the demonstrations in front of the query, and the query's image.

    `style_prompt` asks for a caption in a style, {} stands for it: the style's name, or with `tokenize_style` `<code_i>`, i
    its place in `styles` from 0 on; a style that is not there is `<code_n>`, n = the number of styles, and is warned of.
    """

    style_prompt: str = STYLE_PROMPT
    styles: tuple[str, ...] = ()
    tokenize_style: bool = False
    lower_case: bool = True

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        """See Model.prompt. Raises DataError for an example without a style if the task is style."""
        if task_name(task) not in (*_QUERIES, "style") and not _asks(task):
            known = ", ".join(sorted((*_QUERIES, "style")))
            raise ConfigError(f"this model's prompt format has no task {task_name(task)!r}", f"its tasks are {known}")
        demonstration_texts = [f"{self._query(task, e)}{self._label(task, e.label)}." for e in demonstrations]
        text = "".join((START, *demonstration_texts, self._query(task, query), END))
        return Prompt(text, query.images, self._label(task, query.label) + END)

    def plain(self, text: str, image: str, target: str) -> Prompt:
        """See SupportsFineTuning.plain_prompt. With `tokenize_style` a style at the end (` in personality NAME?`) is a code."""
        named = _NAMED.fullmatch(text)
        if self.tokenize_style and named is not None:
            text = f"{plain(named[1])} {self.styled(named[2])}?"
            return Prompt(f"{START} {text}{END}", (image,), f" {plain(target)}{END}")
        return Prompt(f"{START} {plain(text)}{END}", (image,), f" {plain(target)}{END}")

    def clean(self, task: Task | str, text: str) -> str:
        """See Model.clean: an answer ends with its first full stop, line break, or the next question."""
        answer = text.replace('"', "").strip()
        answer = re.split(r"\s*\.(?:\s|$)|\n", answer, maxsplit=1)[0]
        if task_name(task) != "vqa":
            answer = answer.split(CAPTION.strip(), 1)[0]
        return " ".join(answer.split())

    def styled(self, style: str) -> str:
        """The form of a style in a prompt."""
        if not self.tokenize_style:
            return plain(style)
        if style in self.styles:
            return code_token(self.styles.index(style))
        unknown = code_token(len(self.styles))
        warnings.warn(
            f"unknown style {style!r}: it is written as {unknown}, like every style that is not in the model's list",
            IclWarning,
            stacklevel=2,
        )
        return unknown

    def _query(self, task: Task | str, example: Example) -> str:
        name = task_name(task)
        if name == "style":
            if not example.style:
                raise DataError(f"example {example.id} has no style", "use a data set of captions in styles")
            return self.style_prompt.replace("{}", self.styled(example.style))
        if name not in _QUERIES and isinstance(task, Task):
            return " " + "".join(segments(task.prompt(_TEMPLATES).query, example, plain))
        question = clean_question(example.question) if name == "vqa" else plain(example.question)
        return _QUERIES[name].replace("{}", question)

    def _label(self, task: Task | str, label: str) -> str:
        sentence = task_name(task) in _SENTENCES or (isinstance(task, Task) and task.sentences)
        words = clean_caption(label, self.lower_case) if sentence else plain(label)
        return f" {words}" if words else ""
