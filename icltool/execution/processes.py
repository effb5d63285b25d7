"""Which of the processes of a distributed training this is."""

from __future__ import annotations

import os

from icltool.errors import ConfigError


def is_leader() -> bool:
    """Whether this is process 0 of a distributed training, or the only one; launchers say so by these variables."""
    rank = _number("RANK")
    if rank is not None:
        return rank == 0
    within = _number("LOCAL_RANK")
    if within is not None:  # of one machine: process 0 of the others leads nobody
        return within == 0 and not (_number("NODE_RANK") or _number("GROUP_RANK"))
    return not any(_number(name) for name in ("SLURM_PROCID", "JSM_NAMESPACE_RANK"))


def launched() -> tuple[int, int]:
    """(processes on this machine, machines) that torchrun started for this command; (1, 1) where it did not start it."""
    world = _number("WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None
    here = _number("LOCAL_WORLD_SIZE") or world
    return (here, world // here) if world and here else (1, 1)


def _number(name: str) -> int | None:
    value = os.environ.get(name)
    if value is not None and not value.isdigit():
        raise ConfigError(f"environment variable {name} is {value!r}, not a number", f"unset {name}")
    return None if value is None else int(value)
