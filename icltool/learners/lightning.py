"""Running Lightning: loggers, seeds, interruption, what it says while it trains. For every learner that trains with it."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.seed import isolate_rng

from icltool.contracts import Progress
from icltool.errors import ConfigError, IclError


def make_trainer(
    settings: Mapping[str, Any], folder: Path, loggers: Sequence[Logger], callbacks: list[Callback]
) -> Trainer:
    """Lightning's Trainer. ConfigError when it refuses its options."""
    try:
        return Trainer(
            **{**settings, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False},
            default_root_dir=folder,
            logger=list(loggers),
            callbacks=callbacks,
        )
    except (TypeError, ValueError, MisconfigurationException, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split()).removeprefix("Trainer.__init__() ")
        raise ConfigError(
            f"Lightning's Trainer refuses its options: {reason}", "check --trainer and precision"
        ) from error


def build_loggers(names: Sequence[str], folder: Path) -> list[Logger]:
    """A CSV file in logs/, and the loggers asked for. ConfigError when one is not installed."""
    loggers: list[Logger] = [CSVLogger(folder, name="logs", version="")]
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


class _DetailHandler(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.detail(record.getMessage().strip())


@contextlib.contextmanager
def chatter_to(progress: Progress) -> Iterator[None]:
    """What Lightning and torch log and warn about while training goes to `progress.detail`."""
    handler = _DetailHandler(progress)
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    before = [(log, log.handlers[:], log.propagate, log.level) for log in loggers]
    seen: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(str(message).split())
        if text not in seen:
            seen.add(text)
            progress.detail(text)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        for log in loggers:
            log.handlers, log.propagate = [handler] if log.name == "lightning" else [], log.name != "lightning"
        try:
            yield
        except IclError:
            raise
        finally:
            for log, handlers, propagate, level in before:
                log.handlers, log.propagate = handlers, propagate
                log.setLevel(level)


def learning_rate_factor(step: int, warmup: int, steps: int) -> float:
    """The share of the peak rate at `step` (from 0) of `steps`: linear up over `warmup` steps, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(steps - warmup, 1), 1.0)))
