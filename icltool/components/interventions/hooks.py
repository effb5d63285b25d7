"""Forward hooks that are always removed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    #: A module's output: states, or a tuple that begins with them.
    Output = Tensor | tuple[Tensor, ...]

#: States of a module -> the states that replace them.
Change: TypeAlias = "Callable[[Tensor], Tensor]"


@contextmanager
def changed_outputs(modules: Sequence[Module], changes: Sequence[Change]) -> Iterator[None]:
    """A context in which each module's output (the first item of a tuple) goes through its change.

    These are torch's own hooks, so they run whenever the module runs: generation with a cache, gradient checkpointing,
    modules spread over devices.
    """
    with ExitStack() as stack:
        for module, change in zip(modules, changes, strict=True):
            stack.callback(module.register_forward_hook(_on_output(change)).remove)
        yield


@contextmanager
def changed_inputs(modules: Sequence[Module], changes: Sequence[Change]) -> Iterator[None]:
    """A context in which each module's first positional input goes through its change."""
    with ExitStack() as stack:
        for module, change in zip(modules, changes, strict=True):
            stack.callback(module.register_forward_pre_hook(_on_input(change)).remove)
        yield


def _on_output(change: Change) -> Callable[[Module, tuple[Tensor, ...], Output], Output]:
    def hook(module: Module, inputs: tuple[Tensor, ...], output: Output) -> Output:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    return hook


def _on_input(change: Change) -> Callable[[Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(module: Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (change(inputs[0]), *inputs[1:])

    return hook
