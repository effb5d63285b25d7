"""What the processes of one training tell one another, and what happens where one of them is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from icltool.errors import IclError, StoreError


def over_processes(trainer: Trainer, values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` over all processes of the training, in each of them; all must call it."""
    total = values.clone()
    if trainer.world_size > 1:  # Lightning's own reduce waits at a barrier first, in every step
        torch.distributed.all_reduce(total)
    return total


def without_share(loss: torch.Tensor, parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """What a process returns in place of `loss` where that must not count: 0, float32, whose gradient is 0 for all that `loss`
    depends on, or for `parameters` where it depends on none.

    Times 0 would not do: a loss, or a derivative on the way back, that is not finite stays so. What `loss` does not reach gets
    no gradient here, too: DDP would take it for used, and the optimiser would let it decay.
    """
    reached = _leaves(loss) or list(parameters)
    return torch.stack([leaf.flatten()[:0].sum().float().to(loss.device) for leaf in reached]).sum()


def _leaves(loss: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that the backward pass of `loss` would leave gradients in."""
    found, seen, ahead = [], set(), [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), torch.Tensor):
            found.append(leaf)
        ahead += [following for following, _ in node.next_functions]
    return found


def check_alike(trainer: Trainer, going_on: bool, state: Path) -> None:
    """StoreError where some processes of the training see a saved state and others none; all must call it."""
    seen = int(over_processes(trainer, torch.tensor([float(going_on)], device=trainer.strategy.root_device)))
    if 0 < seen < trainer.world_size:
        raise StoreError(
            f"{state} is there for {seen} of the {trainer.world_size} processes of the training",
            "the workspace must be on a path that all machines share; where it is, run the same command again",
        )


def check_world(trainer: Trainer, world: int | None, state: Path) -> None:
    """StoreError where a state was saved by `world` processes (None: not known) and the training has another number: places in
    an epoch and rates of learning count batches of all processes."""
    if world is not None and world != trainer.world_size:
        raise StoreError(
            f"{state} is of a training in {number_of_processes(world)}, and this one has {trainer.world_size}",
            f"go on in {number_of_processes(world)}; --overwrite starts the training anew",
        )


def number_of_processes(count: int) -> str:
    """The number with its noun."""
    return f"{count} process" if count == 1 else f"{count} processes"


@contextlib.contextmanager
def together(trainer: Trainer) -> Iterator[None]:
    """One process of a training fails: none goes on waiting for it.

    Where this one fails, those that it started are ended: they write nothing. Where it lost another, which has told why, a
    line says so. Lightning watches from process 0 over those that it started. Processes that something else started (srun,
    torchrun) are for that to end; what they wait for ends after Lightning's timeout of half an hour.
    """
    try:
        yield
    except Exception as error:
        for process in getattr(trainer.strategy.launcher, "procs", ()):
            process.kill()
        if trainer.world_size > 1 and _is_lost_connection(error):
            raise IclError(
                "another process of the training ended before its time: what it said stands above",
                "mend that and run the same command again; what was finished is kept",
            ) from error
        raise


def _is_lost_connection(error: BaseException) -> bool:
    """Whether this is how a collective fails where another process is gone."""
    text = str(error)
    told = ("Connection closed by peer", "Connection reset by peer", "gloo/transport", "Broken pipe")
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(part in text for part in told)
    )
