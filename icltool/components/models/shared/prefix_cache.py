"""Reuse of keys and values computed for a prefix: what adapters of causal transformers models share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.tokens import TokenizedPrompt, check_length, padded_rows
from icltool.contracts import KeysValues, Prompt, PromptTokens, Span

if TYPE_CHECKING:
    from transformers import DynamicCache

#: Logits computed at once, at most (positions x vocabulary); each takes four bytes in float32.
LOGITS_AT_ONCE = 1 << 26


@dataclass(frozen=True)
class PaddedSpans:
    """A batch of spans on the device, padded on the right, whose prefixes are padded on the left.

    `ids`, `positions` int64 [B, S]. `visible` bool [B, 1, S, P + S]: which keys each token attends to, by causality and
    padding alone; a padded token sees what the last token of its row sees. `present` int64 [B, P + S]: 0 for padding.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor
    present: torch.Tensor

    def additive(self, dtype: torch.dtype) -> torch.Tensor:
        """`visible` as numbers to be added to attention scores: 0, or the lowest of `dtype`."""
        blocked = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=self.visible.device)
        return torch.where(self.visible, torch.zeros((), dtype=dtype, device=self.visible.device), blocked)

    def within(self, window: int) -> PaddedSpans:
        """The same batch where a token attends only to the last `window` tokens, itself included."""
        past = self.present.shape[1] - self.ids.shape[1]
        starts = self.positions[:, :1]
        before = torch.arange(past, device=self.ids.device)[None] - past + starts
        own = torch.arange(self.ids.shape[1], device=self.ids.device)[None] + starts
        near = torch.cat([before, own], dim=1)[:, None, :] > self.positions[:, :, None] - window
        return replace(self, visible=self.visible & near[:, None])

    def joined(self, spans: Sequence[Span]) -> PaddedSpans:
        """The same batch of `spans` where the tokens of a block attend to each other."""
        length = self.ids.shape[1]
        rows = []
        for span in spans:
            row = [-1] * length
            for number, (start, end) in enumerate(span.tokens.blocks):
                if span.start <= start and end <= span.end:
                    row[start - span.start : end - span.start] = [number] * (end - start)
            rows.append(row)
        blocks = to_device(torch.tensor(rows), self.ids.device)
        same = (blocks[:, :, None] == blocks[:, None, :]) & (blocks >= 0)[:, :, None]
        past = self.visible.shape[3] - length
        before, own = self.visible[..., :past], self.visible[..., past:]
        return replace(self, visible=torch.cat([before, own | same[:, None]], dim=3))


def padded_spans(spans: Sequence[Span], pad: int, device: torch.device, past: int) -> PaddedSpans:
    """The batch of these spans after prefixes of `past` columns (the longest start, or 0)."""
    lengths = [span.end - span.start for span in spans]
    longest = max(lengths)
    ids = padded_rows([span.tokens.ids[span.start : span.end] for span in spans], pad).ids
    starts = to_device(torch.tensor([span.start for span in spans])[:, None], device)
    ends = to_device(torch.tensor(lengths)[:, None], device)
    columns = torch.arange(longest, device=device)[None]
    before = torch.arange(past, device=device)[None] >= past - starts
    within = columns < ends
    causal = columns[0][:, None] >= columns[0][None]
    visible = torch.cat(
        [before[:, None, :].expand(-1, longest, -1), causal[None] & within[:, None, :]], dim=2
    )  # [B, S, P + S]
    return PaddedSpans(
        ids=to_device(ids, device),
        positions=starts + columns.clamp(max=ends - 1),
        visible=visible[:, None],
        present=torch.cat([before, within], dim=1).long(),
    )


def padded_prompts(prompts: Sequence[PromptTokens], pad: int, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask) int64 [B, T] of whole prompts, padded on the left, on the CPU. Raises DataError for more than `limit`
    tokens."""
    check_length(max(len(prompt.ids) for prompt in prompts), limit)
    rows = padded_rows([prompt.ids for prompt in prompts], pad, "left")
    return rows.ids, rows.mask


def filled_cache(past: KeysValues, repeats: int) -> DynamicCache:
    """A transformers cache for generation that holds `past`, each row `repeats` times."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer in range(len(past)):
        keys, values = past[layer]
        if repeats > 1:
            keys, values = keys.repeat_interleave(repeats, 0), values.repeat_interleave(repeats, 0)
        cache.update(keys, values, layer)
    return cache


@dataclass(frozen=True)
class PredictingPositions:
    """Where a batch of spans predicts target tokens, on the device: int64 [N] each. `rows` and `columns` are positions in the
    batch, `targets` the tokens predicted there."""

    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor


def predicting_positions(spans: Sequence[Span], device: torch.device) -> PredictingPositions:
    """The positions whose logits are needed, row by row."""
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for row, span in enumerate(spans):
        first = max(span.start, span.tokens.target_start - 1)
        last = max(first, min(span.end, len(span.tokens.ids) - 1))
        rows += [row] * (last - first)
        columns += range(first - span.start, last - span.start)
        targets += span.tokens.ids[first + 1 : last + 1]
    return PredictingPositions(*to_device(torch.tensor([rows, columns, targets], dtype=torch.long), device))


def span_log_probs(
    hidden: torch.Tensor, positions: PredictingPositions, head: Callable[[torch.Tensor], torch.Tensor], vocabulary: int
) -> torch.Tensor:
    """float64 [B]: summed log-probabilities in nats of the target tokens that a batch of spans predicts.

    `hidden` [B, S, width] are the last layer's states; `head` turns states [N, width] into logits [N, vocabulary] and is
    called for `positions` only. The log-softmax is computed in float32, sums in float64.
    """
    sums = torch.zeros(len(hidden), dtype=torch.float64, device=hidden.device)
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    for low in range(0, len(positions.rows), step):
        part = slice(low, low + step)
        rows = positions.rows[part]
        logits = head(hidden[rows, positions.columns[part]])
        log_probs = torch.log_softmax(logits.float(), dim=-1).gather(1, positions.targets[part, None])[:, 0]
        sums.index_add_(0, rows, log_probs.double())
    return sums


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on `device`, copied asynchronously."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def image_units(tokens: TokenizedPrompt, prompt: Prompt, image_token: int) -> PromptTokens:
    """PromptTokens where one token stands for each image."""
    units: list[int | tuple[int, str]] = []
    images, last = iter(prompt.images), tokens.target_start
    for position, token in enumerate(tokens.ids):
        if token == image_token:
            units.append((token, next(images)))
            last = position
        else:
            units.append(token)
    return PromptTokens(tuple(tokens.ids), tuple(units), tokens.target_start, last, prompt.images)
