"""Gradient checkpointing of a frozen decoder, which computes activations twice to save memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from torch.nn import Module
from torch.utils.checkpoint import checkpoint


@contextmanager
def checkpointed(layers: Sequence[Module]) -> Iterator[None]:
    """A context in which each layer keeps only its inputs for the backward pass, and runs again there.

    The layers' `forward` is wrapped: hooks on a layer run once, outside it; hooks on modules inside it run both times, with
    the same result. Modes and dropout of the layers are unchanged. The backward pass must be in the context, too.
    """
    with ExitStack() as stack:
        for layer in layers:
            own = vars(layer).get("forward")
            stack.callback(_restore, layer, own)
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        yield


def _restore(layer: Module, own: Callable[..., object] | None) -> None:
    """`own` is the `forward` attribute that the object itself had before, None if it was that of its class."""
    if own is None:
        del layer.forward
    else:
        layer.forward = own
