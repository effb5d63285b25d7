"""Coordination of the processes of one training, and the failure of one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from icltool.errors import IclError, StoreError


def over_processes(trainer: Trainer, values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` over all processes of the training, on each of them; all must call it."""
    total = values.clone()
    if trainer.world_size > 1:  # Lightning's own reduce waits at a barrier in every step
        torch.distributed.all_reduce(total)
    return total


def without_share(loss: torch.Tensor, parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """A replacement for a `loss` that must not count: 0, float32, with gradient 0 for every leaf on which `loss` depends, or
    for `parameters` if it depends on none.

    Multiplying by 0 is not enough: a non-finite loss or derivative would stay non-finite. Leaves that `loss` does not reach
    get no gradient here either: DDP would consider them used, and the optimiser would apply weight decay to them.
    """
    reached = _leaves(loss) or list(parameters)
    return torch.stack([leaf.flatten()[:0].sum().float().to(loss.device) for leaf in reached]).sum()


def _leaves(loss: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that would get gradients in the backward pass of `loss`."""
    leaves, seen, pending = [], set(), [loss.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), torch.Tensor):
            leaves.append(leaf)
        pending += [following for following, _ in node.next_functions]
    return leaves


def check_alike(trainer: Trainer, resuming: bool, state: Path) -> None:
    """Raises StoreError if only some processes of the training see a saved state; all must call it."""
    count = int(over_processes(trainer, torch.tensor([float(resuming)], device=trainer.strategy.root_device)))
    if 0 < count < trainer.world_size:
        raise StoreError(
            f"only {count} of the {trainer.world_size} processes of the training see {state}",
            "put the workspace on a path that all machines share; if it already is, run the same command again",
        )


def check_world(trainer: Trainer, world: int | None, state: Path) -> None:
    """Raises StoreError if a state was saved by `world` processes (None: unknown) and the training has another number, since
    positions in an epoch and learning rates depend on it."""
    if world is not None and world != trainer.world_size:
        raise StoreError(
            f"{state} was saved by a training with {number_of_processes(world)}, but this one has {trainer.world_size}",
            f"resume with {number_of_processes(world)}, or restart the training with --overwrite",
        )


def number_of_processes(count: int) -> str:
    """The number with its noun: "1 process", "2 processes"."""
    return f"{count} process" if count == 1 else f"{count} processes"


@contextlib.contextmanager
def together(trainer: Trainer) -> Iterator[None]:
    """A context in which no process of a training waits for one that has failed.

    If this process fails, it ends the processes that it started, which write nothing. If it loses another process, which has
    printed its own error, an IclError says so. Lightning watches from process 0 over the processes that it started.
    Processes started by srun or torchrun are ended by those, or by Lightning's timeout of half an hour.
    """
    try:
        yield
    except Exception as error:
        for process in getattr(trainer.strategy.launcher, "procs", ()):
            process.kill()
        if trainer.world_size > 1 and _is_lost_connection(error):
            raise IclError(
                "another process of the training has failed; its error is printed above",
                "correct the cause and run the same command again; finished work is kept",
            ) from error
        raise


def _is_lost_connection(error: BaseException) -> bool:
    """Whether a collective operation failed because another process is gone."""
    text = str(error)
    messages = ("Connection closed by peer", "Connection reset by peer", "gloo/transport", "Broken pipe")
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(part in text for part in messages)
    )
