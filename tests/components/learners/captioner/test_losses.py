"""Losses beside plain twins."""

from __future__ import annotations

import math

import pytest
import torch

from icltool.components.learners.captioner.losses import answer_log_probs, self_critical_loss, smoothed_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_the_formula(smoothing: float) -> None:
    logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(0)) * 3
    tokens = torch.tensor([3, 0, 10, 5, 5, 1, 9])
    each, total = smoothing / 10, 0.0
    for row, token in zip(logits.tolist(), tokens.tolist(), strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        nll = [norm - value for value in row]
        total += (1 - smoothing - each) * nll[token] + each * sum(nll)
    assert float(smoothed_cross_entropy(logits, tokens, smoothing)) == pytest.approx(total / 7, rel=1e-5)


def test_smoothed_targets_are_a_distribution() -> None:
    """The target has probability 1 - s, every other token s / (V - 1)."""
    logits, tokens = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 5, 2, 2])
    expected = torch.full((4, 6), 0.2 / 5)
    expected[torch.arange(4), tokens] = 0.8
    plain = -(expected * torch.log_softmax(logits, -1)).sum(-1).mean()
    assert float(smoothed_cross_entropy(logits, tokens, 0.2)) == pytest.approx(float(plain), rel=1e-5)


def test_the_self_critical_loss_is_the_mean_over_images() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(2), requires_grad=True)
    tokens, rows = torch.tensor([1, 2, 3, 4, 0, 1]), torch.tensor([0, 0, 1, 2, 2, 2])
    log_probs = answer_log_probs(logits, tokens, rows, 4)
    plain = [0.0] * 4
    for row, token, own in zip(rows.tolist(), tokens.tolist(), torch.log_softmax(logits, -1).tolist(), strict=True):
        plain[row] += own[token]
    assert log_probs.tolist() == pytest.approx(plain, abs=1e-5)
    advantages = torch.tensor([0.5, -0.5, 1.0, -1.0])
    loss = self_critical_loss(log_probs, advantages, torch.full((4,), 1 / (2 * 2)))
    images = [plain[0] * 0.5 - plain[1] * 0.5, plain[2] * 1.0 - plain[3] * 1.0]
    assert float(loss.detach()) == pytest.approx(sum(-total / 2 for total in images) / 2, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) > 0
