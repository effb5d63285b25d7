"""One training, from its first step or a saved state to its last step, and the files that it writes."""

from __future__ import annotations

import contextlib
import math
import pickle
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerStatus
from torch.distributed.fsdp import FullyShardedDataParallel

from icltool.components.learners.fitting.logs import build_loggers, finish_runs, save_logs, truncate_log
from icltool.components.learners.fitting.processes import check_alike, check_world, together
from icltool.components.learners.fitting.stopping import StopRequest
from icltool.components.learners.fitting.trainer import Settings, interruptible, make_trainer, same_determinism
from icltool.contracts import Progress, Ticker, TrainingOutcome
from icltool.errors import ConfigError, StoreError
from icltool.store.atomic import same_file, sync, writing

#: The saved state of an unfinished training, and the name of the weights after the last record of its history.
RESUME, LAST = "resume.ckpt", "last"
#: One record of figures: of an epoch, or of a validation.
Record: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Best:
    """The record with the largest or smallest `figure`; ties go to the first. NaN is never better than a number."""

    figure: str
    largest: bool = True

    def place(self, history: Sequence[Mapping[str, float]]) -> int | None:
        """Its position in the history; None if no record has the figure."""
        best: int | None = None
        for place, record in enumerate(history):
            if self.figure in record and (best is None or self._beats(record, history[best])):
                best = place
        return best

    def _beats(self, record: Mapping[str, float], other: Mapping[str, float]) -> bool:
        one, before = record[self.figure], other[self.figure]
        return one > before or math.isnan(before) if self.largest else one < before or math.isnan(before)


class FittedModule(LightningModule):
    """A module that summarises an epoch, or a validation run by Lightning."""

    @abstractmethod
    def summarise(self) -> Record:
        """The figures of the one that has just ended, including `epoch` and `step`; called in all processes."""


class BatchReport(NamedTuple):
    """A note on a batch for the progress bar, and figures for the loggers."""

    note: str = ""
    figures: Mapping[str, float] = {}


class Training(ABC):
    """One training as the runner sees it. A learner's subclass defines Lightning's options and the content of the files.

    After every epoch (`closes` "epoch") or validation run by Lightning ("validation") the runner calls `write_last`, copies
    the weights for each of `bests` by which the new record is the best, and calls `write_others`. A training that closes
    epochs can be resumed: its state is saved after each epoch, and with `saves_steps` also after a step when `save_every` is
    reached or a signal requests a stop.
    """

    #: The progress bar's title, and what it counts.
    title: str
    noun: ClassVar[str] = "batches"
    closes: ClassVar[Literal["epoch", "validation"]] = "epoch"
    bests: ClassVar[Mapping[str, Best]] = {}
    saves_steps: ClassVar[bool] = False
    #: What to do if a GPU runs out of memory.
    memory_hint: ClassVar[str]
    #: The part of a saved state in which older releases stored the runner's record of a training.
    earlier_part: ClassVar[str] = ""
    #: Steps between two saved states, and records without improvement after which training ends; 0 disables either.
    save_every, patience = 0, 0
    #: Identifies the training, so that it is not resumed from the state of another one.
    identity = ""

    def __init__(self, module: FittedModule, folder: Path, progress: Progress, loggers: Sequence[str]) -> None:
        self.module, self.folder, self.progress, self.loggers = module, folder, progress, loggers

    @property
    def resume(self) -> Path:
        """The path of the saved state."""
        return self.folder / RESUME

    def weights(self, name: str = LAST) -> Path:
        """The path of the weights of this name."""
        return self.folder / f"{name}.safetensors"

    @abstractmethod
    def settings(self) -> Settings:
        """The options of Lightning's Trainer."""

    def prepared(self) -> AbstractContextManager[object]:
        """A context in which the module is ready for training."""
        return contextlib.nullcontext()

    def check(self, trainer: Trainer) -> None:
        """Raises ConfigError if this Trainer cannot train the module."""
        return

    @abstractmethod
    def begin(self) -> None:
        """Removes the files of an earlier training, except its logs; called in process 0."""

    def needs_validation(self, record: Record) -> bool:
        """Whether `validated` applies to this record of an epoch."""
        return False

    def validated(self, record: Record) -> Record:
        """The record with the figures of the learner's own validation; called in all processes."""
        return record

    @abstractmethod
    def write_last(self, history: Sequence[Record]) -> None:
        """Writes `last.safetensors`, with the figures of the history's last record; called in process 0."""

    def write_others(self, history: Sequence[Record]) -> None:
        """Writes the files beside the weights; called in process 0."""
        return

    def batches_done(self, trainer: Trainer) -> int:
        """The number of batches done before the training starts or resumes."""
        return int(trainer.num_training_batches) * trainer.current_epoch

    @abstractmethod
    def report(self, trainer: Trainer, batch: int) -> BatchReport:
        """The report on this batch (from 0) of the epoch; called in process 0."""

    @abstractmethod
    def describe(self, record: Record) -> str:
        """The figures of a record in words."""


class CheckpointCallback(Callback):
    """Writes the files of a training while it runs, and the state from which it can be resumed.

    `pending` is the record of an epoch that is trained and saved, but not yet validated: an interrupted validation is
    repeated without its epoch.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.history: list[Record] = []
        self.pending: Record | None = None
        self.resuming, self.world = False, 1
        self.stop = StopRequest()

    @property
    def state_key(self) -> str:
        """See Callback. The name under which saved states of earlier releases have it."""
        return "Keeper"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.world = trainer.world_size
        check_alike(trainer, self.resuming, self.training.resume)

    def state_dict(self) -> dict[str, object]:
        own = {"history": self.history, "pending": self.pending}
        return {**own, "world": self.world, "record": self.training.identity}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        history, pending = state_dict["history"], state_dict.get("pending")
        assert isinstance(history, list)
        self.history, self.pending = list(history), pending if isinstance(pending, dict) else None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.pending is not None:  # no other hook is called if the last epoch is already done
            self._close_epoch(trainer, pl_module, self.pending)
        trainer.should_stop = self._is_patience_over()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.training.saves_steps:
            self.stop.listen()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        within_step = done == trainer.num_training_batches or done % trainer.accumulate_grad_batches
        if within_step or not self.training.saves_steps:
            return  # the end of the epoch saves anyway; within a step there are gradients, which are not saved
        stopping, every = self.stop.requested(trainer), self.training.save_every
        if stopping or (every and trainer.global_step % every == 0):
            self.save(trainer)
        if stopping:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.training.closes != "epoch":
            return
        self.pending = record = self.training.module.summarise()
        if self.training.needs_validation(record):
            self._save_epoch(trainer)
        self._close_epoch(trainer, pl_module, record)
        self._save_epoch(trainer)
        trainer.should_stop = trainer.should_stop or self._is_patience_over()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.training.closes == "validation" and not trainer.sanity_checking:
            self._close_epoch(trainer, pl_module, self.training.module.summarise())

    def _close_epoch(self, trainer: Trainer, module: LightningModule, record: Record) -> None:
        """Validates if due, writes files, and appends the record to the history."""
        training, by_epoch = self.training, self.training.closes == "epoch"
        if training.needs_validation(record):
            with self.stop.at_once():  # the state is saved: nothing is lost
                record = training.validated(record)
        history = [*self.history, record]
        with _whole_parameters(trainer):
            if trainer.is_global_zero:
                training.write_last(history)
                for name, best in training.bests.items():
                    if best.place(history) == len(history) - 1:
                        same_file(training.weights(), training.weights(name))
                training.write_others(history)
        trainer.strategy.barrier("icltool files")
        self.history, self.pending = history, None
        if trainer.is_global_zero:
            place = (
                f"epoch {record['epoch']:.0f}"
                if by_epoch
                else f"epoch {record['epoch']:.2f}, step {record['step']:.0f}"
            )
            training.progress.detail(f"{place}: {training.describe(record)}")
        for logger in trainer.loggers if by_epoch else ():  # modules log validations run by Lightning themselves
            logger.log_metrics(record, int(record["step"]))

    def _save_epoch(self, trainer: Trainer) -> None:
        self.save(trainer)
        if self.training.saves_steps and self.stop.requested(trainer):
            raise KeyboardInterrupt

    def _is_patience_over(self) -> bool:
        """Whether `patience` validated records have come after the best by every criterion in `bests`."""
        waits = []
        for best in self.training.bests.values():
            place = best.place(self.history)
            waits.append(sum(best.figure in later for later in self.history[(place or 0) + 1 :]))
        return bool(self.training.patience) and min(waits, default=0) >= self.training.patience

    def save(self, trainer: Trainer) -> None:
        """Replaces the saved state by the current one, atomically."""
        resume = self.training.resume
        temporary = _unfinished(resume)
        save_logs(trainer.loggers)
        with writing(resume):
            trainer.save_checkpoint(temporary, weights_only=False)  # in all processes, which gather their parts
            if trainer.is_global_zero:
                if temporary.is_file():
                    sync(temporary)
                if resume.is_dir():
                    shutil.rmtree(resume)
                temporary.replace(resume)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop.ignore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.stop.ignore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.stop.ignore()


class Reporter(Callback):
    """Reports the training's progress to the progress bar and the loggers."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._stack = contextlib.ExitStack()
        self._ticker: Ticker | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            training, total = self._training, int(trainer.num_training_batches) * max(trainer.max_epochs or 1, 1)
            task = training.progress.task(training.title, total, training.noun, done=training.batches_done(trainer))
            self._ticker = self._stack.enter_context(task)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self._ticker is None:
            return
        self._ticker.advance()
        note, figures = self._training.report(trainer, batch_idx)
        if note:
            self._ticker.note(note)
        if figures:
            for logger in trainer.loggers:
                logger.log_metrics(dict(figures), trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._ticker is not None:
            self._ticker.note(self._training.describe(self._training.module.summarise()))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stack.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stack.close()


def fit(training: Training) -> TrainingOutcome:
    """Trains, resuming from a saved state in the folder if there is one, and writes weights and logs to it.

    Raises KeyboardInterrupt on Ctrl-C, with finished work in place; ConfigError for Trainer options that Lightning rejects or
    that leave no record, and for a GPU that is too small; StoreError for a saved state that is damaged, or that belongs to
    another training or number of processes.
    """
    training.folder.mkdir(parents=True, exist_ok=True)
    checkpointing = CheckpointCallback(training)
    saved = _saved_state(training, checkpointing.state_key) if training.resume.exists() else None
    with same_determinism(), training.prepared():
        loggers = build_loggers(training.loggers, training.folder)
        trainer = make_trainer(training.settings(), training.folder, loggers, [checkpointing, Reporter(training)])
        training.check(trainer)
        checkpointing.resuming = saved is not None
        if saved is not None:
            check_world(trainer, saved.world, training.resume)
        if trainer.is_global_zero:  # only now, after all options have been accepted
            _begin(training, saved)
        try:
            with interruptible(training.memory_hint), together(trainer):
                state = training.resume if saved is not None else None
                trainer.fit(training.module, ckpt_path=state, weights_only=True)
        finally:
            finish_runs(trainer.loggers)
    if trainer.state.status == TrainerStatus.INTERRUPTED:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        if not checkpointing.history or any(
            best.place(checkpointing.history) is None for best in training.bests.values()
        ):
            first = "validation" if training.bests else "epoch was complete"
            more = " (--trainer max_steps)" if training.closes == "epoch" else ", or validate more often"
            raise ConfigError(f"training ended before its first {first}", f"give it more steps{more}")
        for path in (training.resume, _unfinished(training.resume)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    names = {name: training.weights(name) for name in (LAST, *training.bests)}
    return TrainingOutcome(names, checkpointing.history)


class _SavedState(NamedTuple):
    """The number of processes that wrote a saved state, and its optimisation step; None if unknown."""

    world: int | None
    step: int | None


def _saved_state(training: Training, key: str) -> _SavedState:
    """The record in a saved state. Raises StoreError for one that is damaged, or that belongs to another training."""
    resume, hint = training.resume, "restart the training with --overwrite"
    if resume.is_dir():  # from a strategy that writes one file per process
        return _SavedState(None, None)
    try:
        state = torch.load(resume, map_location="cpu", weights_only=True, mmap=True)
        own = {**state["callbacks"][key], **state.get(training.earlier_part, {})}
        saved = _SavedState(own.get("world"), state.get("global_step"))
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise StoreError(f"{resume} cannot be read: it is damaged ({type(error).__name__})", hint) from error
    if training.identity != own.get("record", ""):
        raise StoreError(f"{resume} belongs to a training with other options or data", hint)
    return saved


def _begin(training: Training, saved: _SavedState | None) -> None:
    """Removes the files of an earlier training, or truncates the log of a resumed one to its saved state."""
    if saved is None:
        training.begin()
        shutil.rmtree(training.folder / "logs", ignore_errors=True)
    else:
        unit = "saved step" if training.saves_steps else "complete epoch"
        training.progress.say(f"resuming after the last {unit} in {training.resume}")
        truncate_log(training.folder, saved.step)


def _unfinished(resume: Path) -> Path:
    """The path of a state that is still being written."""
    return resume.with_name(f".{resume.name}.new")


def _whole_parameters(trainer: Trainer) -> AbstractContextManager[object]:
    """A context in which every process has the module's complete parameters, even if the strategy shards them."""
    model = trainer.strategy.model
    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model, writeback=False)
    return contextlib.nullcontext()
