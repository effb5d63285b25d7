"""Runs Lightning: Trainer options, checkpoints at each validation, progress, interruption."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerStatus

from icltool.components.learners.lever_lm import checkpoint as files
from icltool.components.learners.lever_lm.module import LeverLMModule, log_interval
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lightning import (
    build_loggers,
    finish_runs,
    from_launcher,
    interruptible,
    make_trainer,
    same_determinism,
    together,
)
from icltool.contracts import Progress, Ticker
from icltool.errors import ConfigError
from icltool.store.atomic import write_json

_MEMORY_HINT = "lower --option batch_size or n_embd; grad_checkpointing=true where CLIP is trained"
#: Steps between two remarks beside the progress bar.
NOTE_EVERY = 20


class CheckpointCallback(Callback):
    """Writes last, min_vl and min_tl and the history at every validation, so that an interruption loses none."""

    def __init__(self, folder: Path, beside_weights: Callable[[], Mapping[str, torch.Tensor]]) -> None:
        self.folder, self.beside_weights = folder, beside_weights
        self.history: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        record = dict(pl_module.figures)
        weights = {**pl_module.model.state_dict(), **self.beside_weights()}
        metadata = {"format": "pt", **{key: repr(value) for key, value in record.items()}}
        last = self.folder / "last.safetensors"
        files.save_weights(last, weights, metadata)
        for name, figure in (("min_vl", "val_loss"), ("min_tl", "train_loss")):
            if all(record[figure] < earlier[figure] for earlier in self.history):
                files.same_file(last, self.folder / f"{name}.safetensors")
        self.history.append(record)
        write_json(self.folder / files.HISTORY_FILE, self.history)


class Reporter(Callback):
    """Tells the progress how far training is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stack = contextlib.ExitStack()
        self._ticker: Ticker | None = None
        self._losses = ""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            total = int(trainer.num_training_batches) * max(trainer.max_epochs or 1, 1)
            self._ticker = self._stack.enter_context(self._progress.task("train selector", total, "steps"))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._ticker is not None:
            self._ticker.advance()
            if trainer.global_step % NOTE_EVERY == 0 and not self._losses:
                self._ticker.note(f"loss {float(outputs['loss']):.3f}")

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        figures = pl_module.figures
        self._losses = f"loss {figures['train_loss']:.3f}, validation {figures['val_loss']:.3f}"
        if self._ticker is not None:
            self._ticker.note(self._losses)
            self._progress.detail(f"epoch {figures['epoch']:.2f}, step {figures['step']:.0f}: {self._losses}")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._stack.close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._stack.close()


def fit(
    module: LeverLMModule, folder: Path, beside_weights: Callable[[], Mapping[str, torch.Tensor]], progress: Progress
) -> list[dict[str, float]]:
    """Trains and leaves checkpoints, history and logs in `folder`; gives the history, one record per validation.

    `beside_weights` gives what a checkpoint holds besides the weights of the selector's model, at the time of writing.

    Raises KeyboardInterrupt on Ctrl-C, with the checkpoints of finished validations in place; ConfigError for Trainer
    options that Lightning refuses or that leave no validation.
    """
    options = module.model.options
    keeper = CheckpointCallback(folder, beside_weights)
    callbacks: list[Callback] = [keeper, Reporter(progress)]
    with same_determinism():
        trainer = build_trainer(options, folder, callbacks)
        try:
            with interruptible(_MEMORY_HINT), together(trainer):
                trainer.fit(module)
        finally:
            finish_runs(trainer.loggers)
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt
    if trainer.is_global_zero and not keeper.history:
        raise ConfigError("training ended before its first validation", "give it more steps, or validate more often")
    return keeper.history


def build_trainer(options: LeverLMOptions, folder: Path, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer with the user's options on top of ours. ConfigError when it refuses them."""
    accelerator = options.trainer.get("accelerator", "auto")
    cuda = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    settings: dict[str, Any] = {
        "max_epochs": options.epochs,
        "devices": 1,
        "precision": options.precision or ("16-mixed" if cuda else "32-true"),
        # a share of the epoch; a hair more, so that Lightning's rounding down of share x batches gives the exact number
        "val_check_interval": math.nextafter(1 / options.validations_per_epoch, 1),
        "num_sanity_val_steps": 0,
        "log_every_n_steps": log_interval(options),
        "use_distributed_sampler": False,  # EvenBatches deals the rows out
        "deterministic": "warn" if cuda else False,  # on CPU everything used here is deterministic
        **from_launcher(),
        **options.trainer,
    }
    return make_trainer(settings, folder, build_loggers(options.loggers, folder), callbacks)
