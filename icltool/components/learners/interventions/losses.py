"""Distances between the distributions of teacher and student over the tokens of an answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TeacherLogProbs:
    """The teacher's distribution at N positions, in nats at one temperature.

    Whole: `log_probs` float32 [N, V], `tokens` and `rest` None. Truncated: `log_probs` [N, k] of the most probable `tokens`
    int64 [N, k], and `rest` [N], the log-probability of all others together.
    """

    log_probs: Tensor
    tokens: Tensor | None = None
    rest: Tensor | None = None


def whole(logits: Tensor, temperature: float | Tensor = 1.0) -> TeacherLogProbs:
    """The distribution of logits [N, V]."""
    return TeacherLogProbs(torch.log_softmax(logits.float() / temperature, -1))


def cut(logits: Tensor, k: int, temperature: float = 1.0) -> TeacherLogProbs:
    """The same, truncated to the `k` most probable tokens; whole if the vocabulary is not larger."""
    if k >= logits.shape[-1]:
        return whole(logits, temperature)
    log_probs = torch.log_softmax(logits.float() / temperature, -1)
    top, tokens = log_probs.topk(k, dim=-1)
    others = log_probs.scatter(1, tokens, -torch.inf)
    return TeacherLogProbs(top, tokens, torch.logsumexp(others, -1))


def divergence(teacher: TeacherLogProbs, logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Mean over N positions of KL(teacher || student) x temperature^2, in nats (Hinton et al. 2015, section 2, for the square).

    `logits` [N, V] are the student's. If the teacher's distribution is truncated, all other tokens count as one
    outcome on both sides: the result is never larger than the whole divergence.
    """
    student = torch.log_softmax(logits.float() / temperature, -1)
    if teacher.tokens is None or teacher.rest is None:
        each = _expected(teacher.log_probs, teacher.log_probs - student)
    else:
        own = torch.logsumexp(student.scatter(1, teacher.tokens, -torch.inf), -1)
        student_log_probs = student.gather(1, teacher.tokens)
        each = _expected(teacher.log_probs, teacher.log_probs - student_log_probs)
        each = each + _expected(teacher.rest[:, None], (teacher.rest - own)[:, None])
    return each.mean() * temperature**2


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean over N positions of -log p(token), in nats. `tokens` int64 [N]."""
    return torch.nn.functional.cross_entropy(logits.float(), tokens)


def _expected(log_probs: Tensor, values: Tensor) -> Tensor:
    """[N]: the sum of exp(log_probs) x values over outcomes; an outcome of probability 0 adds nothing."""
    weights = log_probs.exp()
    return torch.where(weights > 0, weights * values, torch.zeros_like(weights)).sum(-1)
