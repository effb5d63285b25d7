"""Sampling of answers, each prompt with random numbers of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from icltool.contracts import GenerationOptions


class SeededSampling:
    """A logits processor of transformers that makes greedy decoding sample: it adds Gumbel noise to the scaled logits.

    The largest of logit / temperature + noise is a draw from the softmax (Gumbel-max). Row b of the batch has a generator
    seeded with (sampling_seed, draws[b]) and takes as many numbers as there are tokens, step by step, so a draw depends on
    nothing else in the batch. Only the most probable tokens that together have the probability `top_p` can be drawn. An
    object serves one call of `generate`.
    """

    def __init__(self, options: GenerationOptions, draws: Sequence[int]) -> None:
        self._temperature, self._top_p = options.temperature, options.top_p
        self._generators = [_generator(options.sampling_seed, draw) for draw in draws]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` [B, vocabulary]; the result is float32 of the same shape."""
        scaled = scores.float() / self._temperature
        if self._top_p < 1:
            ordered, order = scaled.sort(descending=True)
            probabilities = ordered.softmax(-1)
            surplus = probabilities.cumsum(-1) - probabilities >= self._top_p  # the first token always stays
            scaled = scaled.masked_fill(surplus.scatter(1, order, surplus), -torch.inf)
        uniform = torch.stack([torch.rand(scaled.shape[1], generator=g, dtype=torch.float64) for g in self._generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
        return scaled + noise.to(device=scaled.device, dtype=torch.float32)


def _generator(seed: int, draw: int) -> torch.Generator:
    key = hashlib.sha256(f"{seed} {draw}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
