"""What has to be computed at least: the distinct beginnings of prompts, counted one by one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from icltool.contracts import Prompt

Units = tuple[Hashable, ...]


@dataclass(frozen=True)
class PromptUnits:
    """`units` are what tells a prompt's tokens apart: their ids, and for an image token the image too. The tokens from
    `target_start` on are scored."""

    units: Units
    target_start: int


@dataclass(frozen=True)
class TreeSize:
    """`tokens`: nodes of the tree of all prompts, that is distinct beginnings, which is how many tokens have to be computed
    when nothing is computed twice; whole prompts are left out, because the last token of a target predicts nothing.
    `depths`: the sum of their depths, so many keys do they attend to (themselves included). `seeing`: those that attend to
    an image. `outputs`: those after which a target token is scored.

    `scored`: tokens of all prompts, the last ones too; `scored_depths` and `scored_seeing` are the same sums over them.
    """

    tokens: int
    depths: int
    seeing: int
    outputs: int
    scored: int
    scored_depths: int
    scored_seeing: int

    def __add__(self, other: TreeSize) -> TreeSize:
        return TreeSize(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def prompt_units(tokenizer: Any, prompt: Prompt, image_token: str = "<image>") -> PromptUnits:
    """Tokens of text and target; the target begins with the first token that reaches beyond the text."""
    encoded = tokenizer(prompt.text + prompt.target, add_special_tokens=False, return_offsets_mapping=True)
    marker = tokenizer.convert_tokens_to_ids(image_token)
    images = iter(prompt.images)
    units = tuple((token, next(images)) if token == marker else token for token in encoded["input_ids"])
    ends = [end for _, end in encoded["offset_mapping"]]
    return PromptUnits(units, next(k for k, end in enumerate(ends) if end > len(prompt.text)))


def tree_size(prompts: Sequence[PromptUnits]) -> TreeSize:
    """The tree of these prompts. A token sees an image when an image token is in the beginning that it ends."""
    beginnings: dict[Units, bool] = {}  # whether the last token sees an image
    outputs: set[Units] = set()
    scored = scored_depths = scored_seeing = 0
    for prompt in prompts:
        sees = False
        for depth, unit in enumerate(prompt.units, start=1):
            sees = sees or isinstance(unit, tuple)
            if depth < len(prompt.units):
                beginnings[prompt.units[:depth]] = sees
            scored += 1
            scored_depths += depth
            scored_seeing += sees
        outputs.update(prompt.units[:depth] for depth in range(prompt.target_start, len(prompt.units)))
    depths, seeing = sum(map(len, beginnings)), sum(beginnings.values())
    return TreeSize(len(beginnings), depths, seeing, len(outputs), scored, scored_depths, scored_seeing)


def forest_size(trees: Iterable[Sequence[PromptUnits]]) -> TreeSize:
    """The sum of one tree for each anchor: beginnings that two anchors share count twice."""
    total = TreeSize(0, 0, 0, 0, 0, 0, 0)
    for prompts in trees:
        total = total + tree_size(prompts)
    return total
