"""The prompt format of the OpenFlamingo models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from icltool import ConfigError, PromptFormat, TaskFormat

IMAGE = "<image>"
END_OF_CHUNK = "<|endofchunk|>"
PAD = "<PAD>"

#: Those of the published runs of Lever-LM, and of LIVE (arXiv:2406.13185).
TEMPLATES = ("lever-lm", "live")
#: How prompt files name the models, the most special name last.
FAMILIES = ("completion", "openflamingo")

_VQA = TaskFormat("Question:{question} Short answer:", stop=("Question", "Answer", "Short"), cut_at_comma=True)
_CLASSIFICATION = TaskFormat("Input:{text} Label:", stop=("Input", "Label"))
_INFERENCE = TaskFormat("Clue:{question} Inference:", stop=("Clue", "Inference"))
#: The same in both templates, and as icltool's own models write them.
_COMMON = {
    "classification": _CLASSIFICATION,
    "style": TaskFormat("Caption in the style {style}:", stop=("Caption",)),
    "inference": _INFERENCE,
    "inference-choice": _INFERENCE,
}


def check_template(template: str) -> None:
    """Raises ConfigError for a template that is not in TEMPLATES."""
    if template not in TEMPLATES:
        raise ConfigError(f"unknown prompt template {template!r}", f"known: {', '.join(TEMPLATES)}")


def prompt_format(start: str, end: str, special_tokens: Sequence[str], template: str = "lever-lm") -> PromptFormat:
    """Lever-LM's demonstrations are chunks, `<image>Output:{caption}<|endofchunk|>`; LIVE's have an empty line between
    them, `<image>Caption:{caption}`.

    `end` closes a target: the tokenizer's EOS, or "" if EOS is the pad token. LIVE's targets have no separator, so
    `<|endofchunk|>`, which ends an answer as well, is then their end. `special_tokens` are all of the tokenizer's; none
    of them gets from data into a prompt. Raises ConfigError for an unknown template.
    """
    check_template(template)
    reserved = tuple(sorted({IMAGE, END_OF_CHUNK, *special_tokens}))
    if template == "live":
        return PromptFormat(
            start=start,
            image=IMAGE,
            separator="\n\n",
            end=end or END_OF_CHUNK,
            reserved=reserved,
            tasks={
                "caption": TaskFormat("Caption:", stop=("Caption",)),
                "vqa": replace(_VQA, closing="."),
                **_COMMON,
            },
            separated_target=False,
            families=FAMILIES,
        )
    return PromptFormat(
        start=start,
        image=IMAGE,
        separator=END_OF_CHUNK,
        end=end,
        reserved=reserved,
        tasks={"caption": TaskFormat("Output:", stop=("Output",)), "vqa": _VQA, **_COMMON},
        families=FAMILIES,
    )
