"""Losses over the tokens of captions."""

from __future__ import annotations

import torch
from torch import Tensor


def smoothed_cross_entropy(logits: Tensor, tokens: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over N tokens of (1 - s - s/(V - 1)) nll + s/(V - 1) x the sum over V tokens of -log p, in nats: the target has
    probability 1 - s, each other token s/(V - 1).

    `logits` [N, V] in any precision, `tokens` int64 [N]. If `smoothing` is 0, there is no sum over the vocabulary.
    """
    if not smoothing:
        return torch.nn.functional.cross_entropy(logits.float(), tokens)
    log_probs = torch.log_softmax(logits.float(), -1)
    each = smoothing / (logits.shape[-1] - 1)
    nll = -log_probs.gather(1, tokens[:, None]).squeeze(1)
    return ((1 - smoothing - each) * nll - each * log_probs.sum(-1)).mean()


def answer_log_probs(logits: Tensor, tokens: Tensor, rows: Tensor, count: int) -> Tensor:
    """float32 [count]: the summed log-probability in nats of each row's tokens; 0 for a row without tokens."""
    log_probs = -torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="none")
    return torch.zeros(count, device=logits.device).index_add(0, rows, log_probs)


def self_critical_loss(log_probs: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    """-sum(log p x advantage x weight), all [R] with one row per beam. Weights are 1 / (beams of the image x images), so this
    is the mean over images of -sum(log p x advantage) / beams (after Rennie et al. 2017)."""
    return -(log_probs * advantages * weights).sum()
