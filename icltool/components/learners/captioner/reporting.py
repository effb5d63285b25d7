"""What a training says while it runs."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from lightning.pytorch import Callback, Trainer

from icltool.contracts import Progress, Ticker

NOTE_EVERY = 10


class Reporter(Callback):
    """Tells the progress how far the training is, its loss, and how many pictures it learns from in a second."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stack = contextlib.ExitStack()
        self._ticker: Ticker | None = None
        self._since, self._pictures = 0.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            batches = int(trainer.num_training_batches)
            epoch, batch = pl_module.position
            total = batches * (trainer.max_epochs or 1)
            self._ticker = self._stack.enter_context(
                self._progress.task("train captioner", total, "batches", done=batches * epoch + batch)
            )
        self._since, self._pictures, self._left_off = time.monotonic(), 0, time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._since += time.monotonic() - self._left_off  # a validation is no training

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._ticker is None:
            return
        self._pictures += len(batch["positions"])
        self._left_off = time.monotonic()
        self._ticker.advance()
        loss = pl_module.batch_loss
        every = getattr(trainer, "log_every_n_steps", 0) or NOTE_EVERY
        done = batch_idx + 1
        if done % every == 0 or done == trainer.num_training_batches:
            each = self._pictures / max(time.monotonic() - self._since, 1e-9)
            whole = each * trainer.world_size
            self._ticker.note(f"loss {loss:.3f}, {each:.1f} images/s per device, {whole:.1f} in all")
        stepped = done % trainer.accumulate_grad_batches == 0 or done == trainer.num_training_batches
        if stepped and (trainer.global_step - 1) % every == 0:
            for logger in trainer.loggers:
                logger.log_metrics({"loss": loss, "lr": pl_module.rate}, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._stack.close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._stack.close()
