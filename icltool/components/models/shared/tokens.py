"""Token arithmetic that every adapter shares: finding the target, batching by length, padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from icltool.contracts import Prompt
from icltool.errors import DataError


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """`ids` of text + target, tokenized once; `target_start` is the position of the target's first token."""

    ids: list[int]
    target_start: int


def tokenize(
    tokenizer: object, prompts: Sequence[Prompt], with_target: bool, limit: int | None = None
) -> list[TokenizedPrompt]:
    """Tokenizes each prompt as a whole. A token belongs to the target when it reaches beyond the prompt text's last
    character, so a token that merges across the border is scored, and nothing is tokenized a second time.

    Raises ValueError for an empty text, or an empty target when `with_target`; DataError when a prompt has more than
    `limit` tokens.
    """
    check_prompts(prompts, with_target)
    if not prompts:
        return []
    texts = [p.text + p.target if with_target else p.text for p in prompts]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=with_target)  # type: ignore[operator]
    found: list[TokenizedPrompt] = []
    for i, ids in enumerate(encoded["input_ids"]):
        check_length(len(ids), limit)
        start = len(ids)
        if with_target:
            border = len(prompts[i].text)
            start = next(k for k, (_, end) in enumerate(encoded["offset_mapping"][i]) if end > border)
        found.append(TokenizedPrompt(list(ids), start))
    return found


def text_lengths(tokenizer: object, prompts: Sequence[Prompt]) -> list[int]:
    """Tokens of each prompt's text and target, for models whose images take no tokens of their own."""
    encoded = tokenizer([p.text + p.target for p in prompts], add_special_tokens=False)  # type: ignore[operator]
    return [len(ids) for ids in encoded["input_ids"]]


def check_prompts(prompts: Sequence[Prompt], with_target: bool) -> None:
    """Raises ValueError for an empty text, or an empty target when `with_target`."""
    for prompt in prompts:
        if not prompt.text or (with_target and not prompt.target):
            raise ValueError("a prompt needs a text, and a target to be scored")


def check_length(tokens: int, limit: int | None) -> None:
    """Raises DataError when a prompt has more than `limit` tokens."""
    if limit is not None and tokens > limit:
        raise DataError(f"a prompt has {tokens} tokens, the model reads {limit}", "use fewer shots")


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions in batches of near-equal length, longest first, so that a batch too large for memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
