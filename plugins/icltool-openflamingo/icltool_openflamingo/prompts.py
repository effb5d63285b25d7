"""The prompt format of the OpenFlamingo models."""

from __future__ import annotations

from collections.abc import Sequence

from icltool import PromptFormat, TaskFormat

IMAGE = "<image>"
END_OF_CHUNK = "<|endofchunk|>"
PAD = "<PAD>"


def prompt_format(start: str, end: str, special_tokens: Sequence[str]) -> PromptFormat:
    """Demonstrations are chunks, `<image>Output:{caption}<|endofchunk|>`.

    `end` closes a target: the tokenizer's EOS, or "" where EOS is the pad token. `special_tokens` are all of the
    tokenizer's; none of them gets into a prompt out of data.
    """
    return PromptFormat(
        start=start,
        image=IMAGE,
        separator=END_OF_CHUNK,
        end=end,
        reserved=tuple(sorted({IMAGE, END_OF_CHUNK, *special_tokens})),
        tasks={
            "caption": TaskFormat("Output:", stop=("Output",)),
            "vqa": TaskFormat(
                "Question:{question} Short answer:", stop=("Question", "Answer", "Short"), cut_at_comma=True
            ),
            "classification": TaskFormat("Input:{text} Label:", stop=("Input", "Label")),
        },
    )
