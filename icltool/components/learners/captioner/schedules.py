"""Learning rates as functions of the training's progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

from icltool.components.learners.captioner.options import CaptionerOptions

#: Batches over which BLIP-2's rate rises, as published.
BLIP2_WARMUP = 1000


@dataclass(frozen=True)
class Moment:
    """The position of a step, all from 0: its epoch, the last of its batches in the epoch, and its number among all `steps`."""

    epoch: int
    batch: int
    step: int
    steps: int


def blip2_rate(
    epoch: int, batch: int, *, lr: float, min_lr: float, warmup_lr: float, warmup: int, epochs: int
) -> float:
    """Linear in epoch 0, from `warmup_lr` at its first batch to `lr` at batch `warmup`, and `lr` from there on; in later
    epochs a cosine that changes between epochs only. Batches are counted, not steps, as in the published training."""
    if epoch == 0:
        return min(lr, warmup_lr + (lr - warmup_lr) * batch / max(warmup, 1))
    return min_lr + (lr - min_lr) / 2 * (1 + math.cos(math.pi * epoch / epochs))


def rising_rate(step: int, *, lr: float, warmup_lr: float, warmup: int) -> float:
    """Linear, reaching `lr` at the last of `warmup` steps."""
    return warmup_lr + (lr - warmup_lr) * min((step + 1) / max(warmup, 1), 1.0)


def polynomial_rate(step: int, steps: int, *, lr: float, min_lr: float, warmup_lr: float, warmup: int) -> float:
    """Rises over `warmup` steps, then falls in a straight line that would reach `min_lr` at step `steps`."""
    if step < warmup:
        return rising_rate(step, lr=lr, warmup_lr=warmup_lr, warmup=warmup)
    return min_lr + (lr - min_lr) * max(1 - (step - warmup) / max(steps - warmup, 1), 0.0)


def cosine_rate(step: int, steps: int, *, lr: float, min_lr: float, warmup_lr: float, warmup: int) -> float:
    """Rises over `warmup` steps, then half a cosine that would reach `min_lr` at step `steps`."""
    if step < warmup:
        return rising_rate(step, lr=lr, warmup_lr=warmup_lr, warmup=warmup)
    done = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return min_lr + (lr - min_lr) / 2 * (1 + math.cos(math.pi * done))


def rate(options: CaptionerOptions, at: Moment) -> float:
    """The learning rate of the step at this moment, before it is scaled by layer."""
    lr, warmup_lr, min_lr = options.lr, options.warmup_lr, options.min_lr
    if options.schedule == "blip2":
        warmup = BLIP2_WARMUP if options.warmup_steps is None else options.warmup_steps
        return blip2_rate(
            at.epoch, at.batch, lr=lr, min_lr=min_lr, warmup_lr=warmup_lr, warmup=warmup, epochs=options.epochs
        )
    warmup = round(options.warmup * at.steps) if options.warmup_steps is None else options.warmup_steps
    warmup = min(warmup, at.steps // 2)  # a short training would end before its rate has risen
    if options.schedule == "constant":
        return rising_rate(at.step, lr=lr, warmup_lr=warmup_lr, warmup=warmup)
    falling = polynomial_rate if options.schedule == "polynomial" else cosine_rate
    return falling(at.step, at.steps, lr=lr, min_lr=min_lr, warmup_lr=warmup_lr, warmup=warmup)
