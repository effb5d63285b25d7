"""Running Lightning: loggers, seeds, interruption, what it says while it trains. For every learner that trains with it."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.seed import isolate_rng

from icltool.errors import ConfigError, IclError, StoreError
from icltool.execution.processes import launched
from icltool.store.atomic import replace_file


def make_trainer(
    settings: Mapping[str, Any], folder: Path, loggers: Sequence[Logger], callbacks: list[Callback]
) -> Trainer:
    """Lightning's Trainer. ConfigError when it refuses its options."""
    try:
        trainer = Trainer(
            **{**settings, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False},
            default_root_dir=folder,
            logger=list(loggers),
            callbacks=callbacks,
        )
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if environment is not None:  # SLURM's number of tasks, say
            environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    except (TypeError, ValueError, MisconfigurationException, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split()).removeprefix("Trainer.__init__() ")
        raise ConfigError(
            f"Lightning's Trainer refuses its options: {reason}", "check --trainer and precision"
        ) from error
    here, machines = launched()
    if here * machines > 1 and trainer.world_size != here * machines:
        raise ConfigError(
            f"torchrun started {_processes(here * machines)}, and the training is asked to have {trainer.world_size}",
            "leave --trainer devices, num_nodes and strategy out: they are taken from torchrun",
        )
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ:
        raise ConfigError(
            f"num_nodes is {trainer.num_nodes}, and nothing started this command on other machines: it would wait for them",
            "start it on each with srun or torchrun; on one machine leave num_nodes out",
        )
    return trainer


def from_launcher() -> dict[str, Any]:
    """What Lightning's Trainer is told where torchrun started the processes; {} where it did not."""
    here, machines = launched()
    return {} if here * machines == 1 else {"devices": here, "num_nodes": machines, "strategy": "ddp"}


def check_half_precision(parameters: Iterable[torch.Tensor], device: torch.device) -> None:
    """ConfigError where weights in float16 would be trained on a CPU, for which torch has not all that it takes."""
    if device.type == "cpu" and any(p.dtype == torch.float16 for p in parameters):
        raise ConfigError(
            "weights in float16 can be trained on a GPU only", "--dtype bfloat16, or float32, trains here"
        )


def build_loggers(names: Sequence[str], folder: Path) -> list[Logger]:
    """A CSV file in logs/, and the loggers asked for. ConfigError when one is not installed."""
    loggers: list[Logger] = [GrowingLog(folder)]
    for name in names:
        try:
            if name == "tensorboard":
                from lightning.pytorch.loggers import TensorBoardLogger

                loggers.append(TensorBoardLogger(folder, name="logs", version=""))
            else:
                from lightning.pytorch.loggers import WandbLogger

                loggers.append(WandbLogger(save_dir=folder / "logs", project="icltool", name=folder.name))
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"logger {name!r} is not installed", f"install it: pip install 'icltool[{name}]'"
            ) from error
    return loggers


class GrowingLog(CSVLogger):
    """logs/metrics.csv below a folder. Lightning would begin a new file; here a training that goes on adds to the one that is
    there, so that in the end it is that of an uninterrupted training. `keep_log` says how much of it counts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="logs", version="")
        self._file = folder / "logs" / "metrics.csv"

    @property
    def experiment(self) -> Any:
        """See CSVLogger."""
        begun, kept = self._experiment is None, _aside(self._file)
        before = _log_rows(self._file) if begun else ([], [])
        if before[1]:  # Lightning removes what is there: a kill must not lose it
            self._file.replace(kept)
        found = super().experiment
        if before[1] and self._experiment is not None:
            _write_log(self._file, *before)
            kept.unlink(missing_ok=True)
            self._experiment.metrics_keys = list(before[0])
        return found

    def finalize(self, status: str) -> None:
        """See CSVLogger. What was logged once more behind a saved state is there once."""
        super().finalize(status)
        if self._experiment is not None:
            header, rows = _log_rows(self._file)
            once = [dict(row) for row in dict.fromkeys(tuple(row.items()) for row in rows)]
            if len(once) < len(rows):
                _write_log(self._file, header, once)


def keep_log(folder: Path, step: int | None) -> None:
    """Drops what was logged behind optimisation step `step`, from which a training goes on (None: it is not known)."""
    file = folder / "logs" / "metrics.csv"
    if _aside(file).is_file() and not file.exists():
        _aside(file).replace(file)
    _aside(file).unlink(missing_ok=True)
    header, rows = _log_rows(file)
    kept = [row for row in rows if step is None or int(row.get("step") or 0) <= step]
    if len(kept) < len(rows):
        _write_log(file, header, kept)


def save_logs(loggers: Sequence[Logger]) -> None:
    """Puts on disk what was logged, before a state is saved that training may go on from."""
    for logger in loggers:
        logger.save()


def _aside(file: Path) -> Path:
    """Where a log is while Lightning begins a new one."""
    return file.with_name(f".{file.stem}-before{file.suffix}")


def _log_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """(columns, rows) of a log; none where it is missing or cut."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = [
                row for row in reader if None not in row and None not in row.values() and row.get("step", "").isdigit()
            ]
            return list(reader.fieldnames or ()), rows
    except (OSError, UnicodeDecodeError, csv.Error):
        return [], []


def _write_log(file: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    with replace_file(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(header))
        writer.writeheader()
        writer.writerows(rows)


def finish_runs(loggers: Sequence[Logger]) -> None:
    """Ends the runs of W&B, which would take in the next training of this process; other loggers close by themselves."""
    for logger in loggers:
        finish = getattr(getattr(logger, "experiment", None), "finish", None)
        if finish is not None:
            finish()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All generators start from `seed` inside, and go on as before outside."""
    with isolate_rng():
        seed_everything(seed, verbose=False)
        yield


@contextlib.contextmanager
def interruptible(hint: str = "lower --option batch_size") -> Iterator[None]:
    """Gives Ctrl-C back to the caller: Lightning turns it into an exit and ignores the signal from then on. `hint` is what
    helps where a GPU's memory is full."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning refuses to train: {' '.join(str(error).split())}", "check --trainer") from error
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            "the GPU's memory is full",
            hint,
        ) from error
    finally:
        if main and before is not None:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def same_determinism() -> Iterator[None]:
    """Undoes the Trainer's process-wide choice of deterministic algorithms."""
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


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
            f"{state} is of a training in {_processes(world)}, and this one has {trainer.world_size}",
            f"go on in {_processes(world)}; --overwrite starts the training anew",
        )


def _processes(count: int) -> str:
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


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """The share of the peak rate at `step` (from 0) of `steps`: linear up over `warmup` steps, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(steps - warmup, 1), 1.0)))
