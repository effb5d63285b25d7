"""Gradient checkpointing of a frozen decoder: its activations are computed twice, so that few of them are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from torch.nn import Module
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpointed(layers: Sequence[Module]) -> Iterator[None]:
    """Within it each layer keeps its inputs alone for the backward pass, and runs again there.

    The layers' `forward` is wrapped, so hooks on a layer run once, outside, and hooks on modules inside it both times, to the
    same result. Modes and dropout of the layers stay as they are. The backward pass must be within, too.
    """
    with ExitStack() as stack:
        for layer in layers:
            own = vars(layer).get("forward")
            stack.callback(_restore, layer, own)
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        yield


def _restore(layer: Module, own: Callable[..., object] | None) -> None:
    """`own` is the forward that the object itself had before, None where it was its class's."""
    if own is None:
        del layer.forward
    else:
        layer.forward = own
