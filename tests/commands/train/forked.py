"""Processes that a test kills, or trains in several of. They are forks of one process that has imported what they need, which a
new interpreter takes seconds for; the test's own process is not forked, since it may have threads and use a GPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from icltool.cli.app import run

#: For tests with such processes: they go to one worker, so that there is one to fork from.
FORKED = pytest.mark.xdist_group("forked")
#: What is imported once.
WARM = (
    "icltool.cli.group",
    "icltool.commands.evaluate.run",
    "icltool.commands.train.run",
    "icltool.commands.train.fine_tuning",
    "icltool.components.learners.captioner.learner",
    "icltool.components.learners.lever_lm.learner",
    "icltool.components.learners.live.learner",
    "icltool.components.models.blip.blip2",
    "icltool.components.models.idefics.idefics",
    "transformers.models.blip_2.modeling_blip_2",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.idefics.modeling_idefics",
    "transformers.models.opt.modeling_opt",
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(WARM))
#: Where launchers say which process this is.
RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "WORLD_SIZE")
#: A process that hangs fails its test; far more than any of them takes.
TIMEOUT = 300


def started(
    work: Callable[..., object],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    output: Path | None = None,
) -> ForkServerProcess:
    """A process that calls `work`, a function of a module, and ends with what it returns where that is a number. Its standard
    output and error go to the file `output`."""
    process = CONTEXT.Process(target=_child, args=(work, arguments, dict(environment or {}), output))
    process.start()
    return process


def ended(process: ForkServerProcess) -> int:
    """How it ended; the negative number of a signal that killed it."""
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"process {process.pid} did not end")
    return process.exitcode


def both_ranks(work: Callable[..., object], *arguments: Any, outputs: tuple[Path, Path] | None = None) -> list[int]:
    """How both ended: two processes of one distributed training, each of which calls `work`."""
    return [ended(process) for process in ranks(work, *arguments, outputs=outputs)]


def ranks(
    work: Callable[..., object], *arguments: Any, outputs: tuple[Path, Path] | None = None
) -> list[ForkServerProcess]:
    """Both processes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    return [
        started(work, *arguments, environment={**shared, "LOCAL_RANK": str(rank)}, output=outputs and outputs[rank])
        for rank in (0, 1)
    ]


def command_line(arguments: list[str]) -> int:
    """What `icltool` with these arguments ends with."""
    return run(arguments)


def _child(work: Callable[..., object], arguments: Any, environment: Mapping[str, str], output: Path | None) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in RANKS:
        os.environ.pop(name, None)
    os.environ.update(environment)
    if output is not None:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
    torch.set_num_threads(1)  # sums over another number of threads round otherwise
    result = work(*arguments)
    sys.exit(result if isinstance(result, int) else 0)
