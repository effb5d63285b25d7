"""Lightning's Trainer: its options, seeds, interruption, and process-wide settings that it changes."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from icltool.components.learners.fitting.processes import number_of_processes
from icltool.errors import ConfigError
from icltool.execution.processes import launched

#: Options of Lightning's Trainer, by name.
Settings: TypeAlias = Mapping[str, Any]
#: Batches, or steps, between two updates of the progress bar's note and of the logs.
NOTE_EVERY = 10


class GradientOptions(Protocol):
    """The options of learners that train, or backpropagate through, a large model in every step."""

    @property
    def epochs(self) -> int: ...

    @property
    def accumulate(self) -> int: ...

    @property
    def clip(self) -> float: ...

    @property
    def precision(self) -> str | None: ...

    @property
    def trainer(self) -> dict[str, Any]: ...


def trainer_settings(
    options: GradientOptions, parameters: Sequence[torch.Tensor], device: torch.device
) -> dict[str, Any]:
    """Options of Lightning's Trainer for a model with these `parameters` on `device`; the user's options take precedence.
    Raises ConfigError for weights that cannot be trained there."""
    check_half_precision(parameters, device)
    cuda = device.type == "cuda"
    own = {
        "max_epochs": options.epochs,
        "accelerator": "gpu" if cuda else "cpu",
        "devices": [device.index or 0] if cuda else 1,
        "precision": options.precision or default_precision(parameters),
        "accumulate_grad_batches": options.accumulate,
        "gradient_clip_val": options.clip or None,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": NOTE_EVERY,
        "use_distributed_sampler": False,  # the learners' own samplers distribute the examples
        "deterministic": "warn" if cuda else False,
    }
    return {**own, **from_launcher(), **options.trainer}


def default_precision(parameters: Iterable[torch.Tensor]) -> str:
    """Mixed precision in the weights' half-precision type; single precision for weights in float32."""
    kinds = {parameter.dtype for parameter in parameters}
    for dtype, name in ((torch.bfloat16, "bf16-mixed"), (torch.float16, "16-mixed")):
        if dtype in kinds:
            return name
    return "32-true"


def make_trainer(settings: Settings, folder: Path, loggers: Sequence[Logger], callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer. Raises ConfigError if it rejects its options."""
    try:
        trainer = Trainer(
            **{**settings, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False},
            default_root_dir=folder,
            logger=list(loggers),
            callbacks=callbacks,
        )
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if environment is not None:  # for example SLURM's number of tasks
            environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    except (TypeError, ValueError, MisconfigurationException, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split()).removeprefix("Trainer.__init__() ")
        raise ConfigError(
            f"Lightning's Trainer rejects its options: {reason}", "check --trainer and precision"
        ) from error
    here, machines = launched()
    if here * machines > 1 and trainer.world_size != here * machines:
        raise ConfigError(
            f"torchrun started {number_of_processes(here * machines)}, but --trainer asks for {trainer.world_size}",
            "leave out --trainer devices, num_nodes and strategy, which are set by torchrun",
        )
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise ConfigError(
            f"num_nodes is {trainer.num_nodes}, but this command does not run on other machines and would wait for them",
            "start it on each machine with srun or torchrun; on one machine leave out num_nodes",
        )
    return trainer


def from_launcher() -> dict[str, Any]:
    """Options of Lightning's Trainer if torchrun started the processes, else {}."""
    here, machines = launched()
    return {} if here * machines == 1 else {"devices": here, "num_nodes": machines, "strategy": "ddp"}


def note_interval(trainer: Trainer) -> int:
    """Batches between two updates of the progress bar's note."""
    return getattr(trainer, "log_every_n_steps", 0) or NOTE_EVERY


def check_half_precision(parameters: Iterable[torch.Tensor], device: torch.device) -> None:
    """Raises ConfigError for weights in float16 on a CPU, where torch lacks operations for training them."""
    if device.type == "cpu" and any(p.dtype == torch.float16 for p in parameters):
        raise ConfigError("weights in float16 can only be trained on a GPU", "use --dtype bfloat16 or float32 on a CPU")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which all generators are seeded with `seed`; their previous states are restored afterwards."""
    with isolate_rng():
        seed_everything(seed, verbose=False)
        yield


@contextlib.contextmanager
def interruptible(hint: str) -> Iterator[None]:
    """Raises KeyboardInterrupt on Ctrl-C, which Lightning turns into an exit and ignores from then on. `hint` says what to do
    if the GPU runs out of memory."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning cannot train: {' '.join(str(error).split())}", "check --trainer") from error
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError("the GPU is out of memory", hint) from error
    finally:
        if main and before is not None:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def same_determinism() -> Iterator[None]:
    """A context after which the Trainer's process-wide choice of deterministic algorithms is undone."""
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def scheduled(optimizer: torch.optim.Optimizer, trainer: Trainer, warmup: float) -> OptimizerLRScheduler:
    """The optimiser with a schedule, for Lightning: linear warmup over a share `warmup` of the steps, then a cosine."""
    steps = int(trainer.estimated_stepping_batches)
    rising = max(round(warmup * steps), 1) if warmup else 0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, rising, steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """The share of the peak rate at `step` (from 0) of `steps`: linear over `warmup` steps, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(steps - warmup, 1), 1.0)))
