"""Traces that something leaves in a model without changing what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _hook(model: Any) -> Callable[[], None]:
    remove: Callable[[], None] = model.decoder_layers()[1].mlp.register_forward_pre_hook(lambda m, i: None).remove
    return remove


def _forward(model: Any) -> Callable[[], None]:
    layer = model.decoder_layers()[1].mlp
    layer.forward = layer.forward
    return lambda: delattr(layer, "forward")


def _gradients(model: Any) -> Callable[[], None]:
    [weight, *_] = model.decoder_layers()[1].parameters()
    was = weight.requires_grad
    weight.requires_grad_(not was)
    return lambda: weight.requires_grad_(was)


def _method(model: Any) -> Callable[[], None]:
    model.score = model.score
    return lambda: delattr(model, "score")


#: Each leaves a trace that changes no score and gives what removes it; and where the trace is told to be.
TRACES = [
    (_hook, "hooks of .* 1.mlp"),
    (_forward, "`forward` of .* 1.mlp"),
    (_gradients, "weights of .* 1"),
    (_method, "methods of the model"),
]
