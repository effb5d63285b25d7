"""Floating-point operations of an IDEFICS model, from the shapes of its modules: two for every multiplication and addition.

Norms, activations and softmax are left out, as is usual: together they are below one per cent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from tests.benchmarks.engine.tree import TreeSize


@dataclass(frozen=True)
class ModelFlops:
    """`token`: all matrices that a token passes. `key`: for every key that a token attends to, in all layers. `seeing`:
    attention to the one image that a token sees. `output`: the output matrix at one position. `image`: vision encoder and
    resampler for one image. `image_keys`: keys and values of one image in all cross-attention layers."""

    token: int
    key: int
    seeing: int
    output: int
    image: int
    image_keys: int

    def least(self, tree: TreeSize, images: int) -> int:
        """What a tree of prompts needs when no token is computed twice, every image is encoded once and so are its keys,
        and logits are computed only where a target token is predicted."""
        return (
            tree.tokens * self.token
            + tree.depths * self.key
            + tree.seeing * self.seeing
            + tree.outputs * self.output
            + images * (self.image + self.image_keys)
        )

    def naive(self, tree: TreeSize, images: int) -> int:
        """What the naive way needs for the same prompts, padding not counted: every token of every prompt with its logits,
        and every one of `images`, an image as often as prompts have it."""
        return (
            tree.scored * (self.token + self.output)
            + tree.scored_depths * self.key
            + tree.scored_seeing * self.seeing
            + images * (self.image + self.image_keys)
        )


def model_flops(model: Any) -> ModelFlops:
    """The figures of an IdeficsForVisionText2Text that has a resampler."""
    body, config = model.model, model.config
    crossing = list(body.gated_cross_attn_layers)
    image_keys = [m for layer in crossing for m in (layer.cross_attn.k_proj, layer.cross_attn.v_proj)]
    latents = body.perceiver_resampler.n_latents
    return ModelFlops(
        token=2 * (_weights(body.layers) + _weights(crossing) - _weights(image_keys)),
        key=4 * config.hidden_size * len(body.layers),
        seeing=4 * config.hidden_size * latents * len(crossing),
        output=2 * _weights([model.lm_head]),
        image=_vision(body.vision_model) + _resampler(body.perceiver_resampler, _positions(body.vision_model)),
        image_keys=2 * latents * _weights(image_keys),
    )


def _vision(vision: Any) -> int:
    positions, width = _positions(vision), vision.config.embed_dim
    patches = 2 * (positions - 1) * vision.embeddings.patch_embedding.weight.numel()
    layers = vision.encoder.layers
    return patches + 2 * positions * _weights(layers) + 4 * width * positions**2 * len(layers)


def _resampler(resampler: Any, positions: int) -> int:
    """Latents attend to the image and to themselves; keys and values are made of both."""
    latents = resampler.n_latents
    total = 0
    for attention, mlp in resampler.blocks:
        seen = positions + latents
        total += 2 * seen * _weights([attention.k_proj, attention.v_proj])
        total += 2 * latents * _weights([attention.q_proj, attention.output_proj, mlp])
        total += 4 * attention.n_heads * attention.head_dim * latents * seen
    return total


def _positions(vision: Any) -> int:
    return int(vision.embeddings.num_positions)


def _weights(modules: Iterable[nn.Module]) -> int:
    """Numbers in the matrices of all linear layers inside `modules`."""
    return sum(part.weight.numel() for m in modules for part in m.modules() if isinstance(part, nn.Linear))
