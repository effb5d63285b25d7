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
    for prompt in prompts:
        if not prompt.text or (with_target and not prompt.target):
            raise ValueError("a prompt needs a text, and a target to be scored")
    if not prompts:
        return []
    texts = [p.text + p.target if with_target else p.text for p in prompts]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=with_target)  # type: ignore[operator]
    found: list[TokenizedPrompt] = []
    for i, ids in enumerate(encoded["input_ids"]):
        if limit is not None and len(ids) > limit:
            raise DataError(f"a prompt has {len(ids)} tokens, the model reads {limit}", "use fewer shots")
        start = len(ids)
        if with_target:
            border = len(prompts[i].text)
            start = next(k for k, (_, end) in enumerate(encoded["offset_mapping"][i]) if end > border)
        found.append(TokenizedPrompt(list(ids), start))
    return found


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions in batches of near-equal length, longest first, so that a batch too large for memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
