"""Token arithmetic that all adapters share: locating the target, batching by length, padding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from icltool.contracts import Prompt
from icltool.errors import DataError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """`ids` of text + target, tokenized once; `target_start` is the position of the target's first token."""

    ids: list[int]
    target_start: int


def tokenize(
    tokenizer: object, prompts: Sequence[Prompt], with_target: bool, limit: int | None = None
) -> list[TokenizedPrompt]:
    """Tokenizes each prompt as a whole. A token belongs to the target if it extends beyond the last character of the prompt
    text, so a token that merges across the border is scored, and nothing is tokenized twice.

    Raises ValueError for an empty text or, with `with_target`, an empty target; DataError if a prompt has more than `limit`
    tokens.
    """
    check_prompts(prompts, with_target)
    if not prompts:
        return []
    texts = [p.text + p.target if with_target else p.text for p in prompts]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=with_target)  # type: ignore[operator]
    tokenized: list[TokenizedPrompt] = []
    for i, ids in enumerate(encoded["input_ids"]):
        check_length(len(ids), limit)
        start = len(ids)
        if with_target:
            border = len(prompts[i].text)
            start = next(k for k, (_, end) in enumerate(encoded["offset_mapping"][i]) if end > border)
        tokenized.append(TokenizedPrompt(list(ids), start))
    return tokenized


def text_lengths(tokenizer: object, prompts: Sequence[Prompt]) -> list[int]:
    """Numbers of tokens in each prompt's text and target, for models whose images take no tokens."""
    encoded = tokenizer([p.text + p.target for p in prompts], add_special_tokens=False)  # type: ignore[operator]
    return [len(ids) for ids in encoded["input_ids"]]


def check_prompts(prompts: Sequence[Prompt], with_target: bool) -> None:
    """Raises ValueError for an empty text or, with `with_target`, an empty target."""
    for prompt in prompts:
        if not prompt.text or (with_target and not prompt.target):
            raise ValueError("a prompt needs a text, and a target to be scored")


def check_length(tokens: int, limit: int | None) -> None:
    """Raises DataError if a prompt has more than `limit` tokens."""
    if limit is not None and tokens > limit:
        raise DataError(f"a prompt has {tokens} tokens, the model reads at most {limit}", "use fewer shots")


def batches_by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, longest first, so that a batch too large for memory fails at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def in_batches(batches: Iterable[Sequence[int]], compute: Callable[[Sequence[int]], Sequence[Result]]) -> list[Result]:
    """The results of `compute` for batches of the positions 0 … N - 1, in the order of the positions."""
    results: dict[int, Result] = {}
    for batch in batches:
        results.update(zip(batch, compute(batch), strict=True))
    return [results[position] for position in range(len(results))]


@dataclass(frozen=True)
class PaddedRows:
    """Rows of tokens as one batch: `ids` and `mask` (0 for padding), int64 [B, T]."""

    ids: torch.Tensor
    mask: torch.Tensor

    @property
    def starts(self) -> list[int]:
        """The column in which each row begins."""
        columns: list[int] = self.mask.argmax(1).tolist()
        return columns

    @property
    def positions(self) -> torch.Tensor:
        """int64 [B, T]: each token's position in its unpadded row."""
        return positions(self.mask)

    def to(self, device: torch.device) -> PaddedRows:
        """The same rows on this device."""
        return PaddedRows(self.ids.to(device), self.mask.to(device))

    def spans(self, tokens: Sequence[TokenizedPrompt]) -> list[tuple[int, int]]:
        """(first, end) columns of the targets of these prompts, which are the rows."""
        return [(s + t.target_start, s + len(t.ids)) for s, t in zip(self.starts, tokens, strict=True)]


def padded_rows(rows: Sequence[Sequence[int]], pad: int, side: str = "right") -> PaddedRows:
    """The rows, padded with `pad` on this side ("left" or "right"), on the CPU."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row_number, row in enumerate(rows):
        part = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[row_number, part], mask[row_number, part] = torch.tensor(row, dtype=torch.long), 1
    return PaddedRows(ids, mask)


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Each token's position in its unpadded row, int64 [B, T], from the mask of a padded batch."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def predicting(spans: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """(rows, columns) of the positions that predict the tokens at `spans`, (first, end) in each row, row by row."""
    rows = [row for row, (first, end) in enumerate(spans) for _ in range(first, end)]
    return rows, [column - 1 for first, end in spans for column in range(first, end)]
