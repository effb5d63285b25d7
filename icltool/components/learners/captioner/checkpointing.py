"""Files of a training while it runs: weights, card, and the state to go on from; and what stops it."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from icltool.components.learners.captioner import card
from icltool.components.learners.captioner.module import CaptionerModule
from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.components.learners.captioner.validation import Validation
from icltool.components.learners.lightning import check_alike, save_logs
from icltool.contracts import Progress, TuningSet
from icltool.store.atomic import sync, writing

#: State of the training after a step, to go on from.
RESUME = "resume.ckpt"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CheckpointCallback(Callback):
    """Saves the state every `save_every` steps, after every epoch and when a signal asks for an end; after every epoch writes
    last.safetensors, validates where it is due, and keeps the best weights.

    `pending` is the record of an epoch that is trained and saved, but not yet validated: an interrupted validation is made
    again, not its epoch.
    """

    def __init__(
        self, folder: Path, data: TuningSet, about: Mapping[str, Any], validation: Validation, options: CaptionerOptions,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.folder, self.data, self.about = folder, data, about
        self.validation, self.options, self.progress = validation, options, progress
        self.history: list[dict[str, float]] = []
        self.best = -math.inf
        self.worse = 0
        self.pending: dict[str, float] | None = None
        self.stop = StopRequest()
        self.going_on = False

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        check_alike(trainer, self.going_on, self.folder / RESUME)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best": self.best, "worse": self.worse, "pending": self.pending}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.best = list(state_dict["history"]), state_dict["best"]
        self.worse, self.pending = state_dict["worse"], state_dict["pending"]

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.pending is not None:  # here, since nothing else is called where the last epoch is behind us
            self._close_epoch(trainer, pl_module, self.pending)
        trainer.should_stop = self._is_patience_over()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.stop.listen()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        done = batch_idx + 1
        if done == trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return  # the end of the epoch saves; within a step there are gradients that are not saved
        stopping = self.stop.asked(trainer)
        every = self.options.save_every
        if stopping or (every and trainer.global_step % every == 0):
            self.save(trainer)
        if stopping:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        record = pl_module.summarise()
        epoch = int(record["epoch"])
        self.pending = record
        if epoch % self.options.validate_every == 0 or epoch == trainer.max_epochs:
            self.save(trainer)
            if self.stop.asked(trainer):
                raise KeyboardInterrupt
        self._close_epoch(trainer, pl_module, record)
        self.save(trainer)
        if self.stop.asked(trainer):
            raise KeyboardInterrupt
        trainer.should_stop = trainer.should_stop or self._is_patience_over()

    def _close_epoch(self, trainer: Trainer, module: CaptionerModule, record: dict[str, float]) -> None:
        """Validates where it is due, writes files, and adds the record to the history."""
        due = int(record["epoch"]) % self.options.validate_every == 0 or record["epoch"] == trainer.max_epochs
        better = False
        if due:
            with self.stop.at_once():  # the state is saved: nothing is lost
                record = {**record, **self.validation.figures(module, self.progress)}
            better = record["selected"] > self.best or not any("selected" in known for known in self.history)
            self.worse = 0 if better else self.worse + 1
            self.best = max(self.best, record["selected"])
        history = [*self.history, record]
        if trainer.is_global_zero:
            self._write(module, history, better)
        trainer.strategy.barrier("captioner files")
        self.history, self.pending = history, None
        told = ", ".join(f"{k} {v:.4g}" for k, v in record.items() if k not in ("epoch", "step"))
        self.progress.detail(f"epoch {record['epoch']:.0f}: {told}")
        for logger in trainer.loggers:
            logger.log_metrics(record, int(record["step"]))

    def _write(self, module: CaptionerModule, history: list[dict[str, float]], better: bool) -> None:
        names, last = module.parts.names(), self.folder / card.LAST
        figures = card.lasting(history[-1])
        self.data.model.save_tuned(last, names, {**self.about, "figures": figures})  # type: ignore[attr-defined]
        if better:
            same_file(last, self.folder / card.BEST)
        judged = [known for known in history if "selected" in known]
        if judged:
            best = max(judged, key=lambda known: known["selected"])  # the first of equals, as for the file
            card.write_card(self.folder, self.data, self.about, best, history[-1])

    def _is_patience_over(self) -> bool:
        return bool(self.options.patience) and self.worse >= self.options.patience

    def save(self, trainer: Trainer) -> None:
        """Replaces the saved state by that of now, whole or not at all."""
        temporary = self.folder / f".{RESUME}.new"
        save_logs(trainer.loggers)
        with writing(self.folder / RESUME):
            trainer.save_checkpoint(temporary, weights_only=False)  # in all processes: they sum up their figures
            if trainer.is_global_zero:
                sync(temporary)
                temporary.replace(self.folder / RESUME)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.stop.ignore()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self.stop.ignore()

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.stop.ignore()


def same_file(source: Path, target: Path) -> None:
    """Gives a file a second name, in place of what had it; a copy where the file system has no hard links."""
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


class StopRequest:
    """Ctrl-C and SIGTERM while training: the first asks for an end after the step, the second ends at once.

    Lightning's own handlers come back with `ignore`.
    """

    def __init__(self) -> None:
        self._wanted, self._now = False, False
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Takes the signals over; no effect outside the main thread."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)

    def ignore(self) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: Any) -> None:
        if self._wanted or self._now:
            raise KeyboardInterrupt
        self._wanted = True

    @contextlib.contextmanager
    def at_once(self) -> Any:
        """Within it a signal ends the training where it is."""
        if self._wanted:
            raise KeyboardInterrupt
        self._now = True
        try:
            yield
        finally:
            self._now = False

    def asked(self, trainer: Trainer) -> bool:
        """Whether an end was asked for, of any process of the training."""
        if trainer.world_size == 1:
            return self._wanted
        return bool(trainer.strategy.reduce_boolean_decision(self._wanted, all=False))
