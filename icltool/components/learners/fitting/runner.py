"""One training, from its first step or from where it was left to its last, with what it leaves in its folder."""

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

from icltool.components.learners.fitting.logs import build_loggers, finish_runs, keep_log, save_logs
from icltool.components.learners.fitting.processes import check_alike, check_world, together
from icltool.components.learners.fitting.stopping import StopRequest
from icltool.components.learners.fitting.trainer import Settings, interruptible, make_trainer, same_determinism
from icltool.contracts import Progress, Ticker, TrainingOutcome
from icltool.errors import ConfigError, StoreError
from icltool.store.atomic import same_file, sync, writing

#: State of a training that is not finished, to go on from, and the weights after the last record of its history.
RESUME, LAST = "resume.ckpt", "last"
#: One record of figures: of an epoch, or of a validation.
Record: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Best:
    """The record whose `figure` is largest, or smallest: the first of equal ones. NaN is never better than a number."""

    figure: str
    largest: bool = True

    def place(self, history: Sequence[Mapping[str, float]]) -> int | None:
        """Where it is in the history; None where no record has the figure."""
        best: int | None = None
        for place, record in enumerate(history):
            if self.figure in record and (best is None or self._beats(record, history[best])):
                best = place
        return best

    def _beats(self, record: Mapping[str, float], other: Mapping[str, float]) -> bool:
        one, before = record[self.figure], other[self.figure]
        return one > before or math.isnan(before) if self.largest else one < before or math.isnan(before)


class FittedModule(LightningModule):
    """A module that can say how an epoch, or a validation of Lightning's, was."""

    @abstractmethod
    def summarise(self) -> Record:
        """The figures of the one that has just ended, `epoch` and `step` among them; in all processes."""


class BatchReport(NamedTuple):
    """What is told of a batch: beside the progress bar, and to the loggers."""

    note: str = ""
    figures: Mapping[str, float] = {}


class Training(ABC):
    """One training as the runner sees it. A learner's subclass says what Lightning is told and what its files hold.

    After every epoch (`closes` "epoch") or validation of Lightning's ("validation") the runner has `last.safetensors` written,
    gives it the name of each of `bests` that the new record is the best by, and has the other files written. A training that
    closes epochs `resumes`: its state is saved with each of them, and with `saves_steps` after single steps too, when
    `save_every` is reached or a signal asks for an end.
    """

    #: The progress bar's title, and its unit.
    title: str
    unit: ClassVar[str] = "batches"
    closes: ClassVar[Literal["epoch", "validation"]] = "epoch"
    bests: ClassVar[Mapping[str, Best]] = {}
    saves_steps: ClassVar[bool] = False
    #: What helps where a GPU's memory is full.
    memory_hint: ClassVar[str]
    #: The part of a saved state in which older releases had what the runner keeps of a training.
    earlier_part: ClassVar[str] = ""
    #: Steps between two saved states, and records without a better one after which training ends; 0 for neither.
    save_every, patience = 0, 0
    #: What the training is of, where a state of another one must not be gone on from.
    identity = ""

    def __init__(self, module: FittedModule, folder: Path, progress: Progress, loggers: Sequence[str]) -> None:
        self.module, self.folder, self.progress, self.loggers = module, folder, progress, loggers

    @property
    def resume(self) -> Path:
        """Where the state is saved."""
        return self.folder / RESUME

    def weights(self, name: str = LAST) -> Path:
        """Where the weights of this name are."""
        return self.folder / f"{name}.safetensors"

    @abstractmethod
    def settings(self) -> Settings:
        """The options of Lightning's Trainer."""

    def prepared(self) -> AbstractContextManager[object]:
        """Within it the module is ready to be trained."""
        return contextlib.nullcontext()

    def check(self, trainer: Trainer) -> None:
        """ConfigError where the module cannot be trained by this Trainer."""
        return

    @abstractmethod
    def begin(self) -> None:
        """Removes what an earlier training left in the folder, but for its logs; in process 0."""

    def is_judged(self, record: Record) -> bool:
        """Whether `judged` adds to this record of an epoch."""
        return False

    def judged(self, record: Record) -> Record:
        """The record with the figures of a validation of the learner's own; in all processes."""
        return record

    @abstractmethod
    def write_last(self, history: Sequence[Record]) -> None:
        """Writes `last.safetensors`, with the figures of the history's last record; in process 0."""

    def write_others(self, history: Sequence[Record]) -> None:
        """Writes what lies beside the weights; in process 0."""
        return

    def batches_done(self, trainer: Trainer) -> int:
        """Batches that the training goes on behind."""
        return int(trainer.num_training_batches) * trainer.current_epoch

    @abstractmethod
    def report(self, trainer: Trainer, batch: int) -> BatchReport:
        """What is told of this batch (from 0) of the epoch; in process 0."""

    @abstractmethod
    def told(self, record: Record) -> str:
        """The figures of a record in words."""


class CheckpointCallback(Callback):
    """Files of a training while it runs, and the state to go on from.

    `pending` is the record of an epoch that is trained and saved, but not yet judged: an interrupted validation is made again,
    not its epoch.
    """

    def __init__(self, training: Training) -> None:
        self.training = training
        self.history: list[Record] = []
        self.pending: Record | None = None
        self.going_on, self.world = False, 1
        self.stop = StopRequest()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.world = trainer.world_size
        check_alike(trainer, self.going_on, self.training.resume)

    def state_dict(self) -> dict[str, object]:
        own = {"history": self.history, "pending": self.pending}
        return {**own, "world": self.world, "record": self.training.identity}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        history, pending = state_dict["history"], state_dict.get("pending")
        assert isinstance(history, list)
        self.history, self.pending = list(history), pending if isinstance(pending, dict) else None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.pending is not None:  # here, since nothing else is called where the last epoch is behind us
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
            return  # the end of the epoch saves; within a step there are gradients that are not saved
        stopping, every = self.stop.requested(trainer), self.training.save_every
        if stopping or (every and trainer.global_step % every == 0):
            self.save(trainer)
        if stopping:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.training.closes != "epoch":
            return
        self.pending = record = self.training.module.summarise()
        if self.training.is_judged(record):
            self._save_epoch(trainer)
        self._close_epoch(trainer, pl_module, record)
        self._save_epoch(trainer)
        trainer.should_stop = trainer.should_stop or self._is_patience_over()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.training.closes == "validation" and not trainer.sanity_checking:
            self._close_epoch(trainer, pl_module, self.training.module.summarise())

    def _close_epoch(self, trainer: Trainer, module: LightningModule, record: Record) -> None:
        """Judges where it is due, writes files, and adds the record to the history."""
        training, by_epoch = self.training, self.training.closes == "epoch"
        if training.is_judged(record):
            with self.stop.at_once():  # the state is saved: nothing is lost
                record = training.judged(record)
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
            training.progress.detail(f"{place}: {training.told(record)}")
        for logger in trainer.loggers if by_epoch else ():  # modules log validations of Lightning's by its own means
            logger.log_metrics(record, int(record["step"]))

    def _save_epoch(self, trainer: Trainer) -> None:
        self.save(trainer)
        if self.training.saves_steps and self.stop.requested(trainer):
            raise KeyboardInterrupt

    def _is_patience_over(self) -> bool:
        """Whether as many judged records as `patience` have come behind the best, by all that weights are kept by."""
        waits = []
        for best in self.training.bests.values():
            place = best.place(self.history)
            waits.append(sum(best.figure in later for later in self.history[(place or 0) + 1 :]))
        return bool(self.training.patience) and min(waits, default=0) >= self.training.patience

    def save(self, trainer: Trainer) -> None:
        """Replaces the saved state by that of now, whole or not at all."""
        resume = self.training.resume
        temporary = _unfinished(resume)
        save_logs(trainer.loggers)
        with writing(resume):
            trainer.save_checkpoint(temporary, weights_only=False)  # in all processes: they gather what they hold
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
    """Tells the progress and the loggers how far the training is."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._stack = contextlib.ExitStack()
        self._ticker: Ticker | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            training, total = self._training, int(trainer.num_training_batches) * max(trainer.max_epochs or 1, 1)
            task = training.progress.task(training.title, total, training.unit, done=training.batches_done(trainer))
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
            self._ticker.note(self._training.told(self._training.module.summarise()))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stack.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stack.close()


def fit(training: Training) -> TrainingOutcome:
    """Trains, from the saved state on where the folder holds one, and leaves weights and logs in it.

    Raises KeyboardInterrupt on Ctrl-C, with what was finished in place; ConfigError for Trainer options that Lightning refuses
    or that leave no record, and a GPU that is too small; StoreError for a saved state that is damaged, of another training,
    or of another number of processes.
    """
    training.folder.mkdir(parents=True, exist_ok=True)
    keeper = CheckpointCallback(training)
    left = _left_by(training, keeper.state_key) if training.resume.exists() else None
    with same_determinism(), training.prepared():
        loggers = build_loggers(training.loggers, training.folder)
        trainer = make_trainer(training.settings(), training.folder, loggers, [keeper, Reporter(training)])
        training.check(trainer)
        keeper.going_on = left is not None
        if left is not None:
            check_world(trainer, left.world, training.resume)
        if trainer.is_global_zero:  # only now, when nothing that was asked for is refused any more
            _begin(training, left)
        try:
            with interruptible(training.memory_hint), together(trainer):
                state = training.resume if left is not None else None
                trainer.fit(training.module, ckpt_path=state, weights_only=True)
        finally:
            finish_runs(trainer.loggers)
    if trainer.state.status == TrainerStatus.INTERRUPTED:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        if not keeper.history or any(best.place(keeper.history) is None for best in training.bests.values()):
            first = "validation" if training.bests else "epoch was whole"
            more = " (--trainer max_steps)" if training.closes == "epoch" else ", or validate more often"
            raise ConfigError(f"training ended before its first {first}", f"give it more steps{more}")
        for path in (training.resume, _unfinished(training.resume)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    names = {name: training.weights(name) for name in (LAST, *training.bests)}
    return TrainingOutcome(names, keeper.history)


class _Left(NamedTuple):
    """How many processes left a saved state, and at which optimisation step; None where it does not say so."""

    world: int | None
    step: int | None


def _left_by(training: Training, key: str) -> _Left:
    """What a saved state says of itself. StoreError for one that is damaged, or of another training."""
    resume, hint = training.resume, "--overwrite starts the training anew"
    if resume.is_dir():  # of a strategy that writes one file per process
        return _Left(None, None)
    try:
        state = torch.load(resume, map_location="cpu", weights_only=True, mmap=True)
        own = {**state["callbacks"][key], **state.get(training.earlier_part, {})}
        left = _Left(own.get("world"), state.get("global_step"))
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise StoreError(f"{resume} cannot be read: it is damaged ({type(error).__name__})", hint) from error
    if training.identity != own.get("record", ""):
        raise StoreError(f"{resume} is of a training with other options or data", hint)
    return left


def _begin(training: Training, left: _Left | None) -> None:
    """Removes what an earlier training left, or keeps the log of the one that goes on, up to where it does."""
    if left is None:
        training.begin()
        shutil.rmtree(training.folder / "logs", ignore_errors=True)
    else:
        saved = "saved step" if training.saves_steps else "whole epoch"
        training.progress.say(f"going on after the last {saved} in {training.resume}")
        keep_log(training.folder, left.step)


def _unfinished(resume: Path) -> Path:
    """Where a state is until all of it is written."""
    return resume.with_name(f".{resume.name}.new")


def _whole_parameters(trainer: Trainer) -> AbstractContextManager[object]:
    """Within it the module's parameters are whole in every process, also where the strategy deals them out."""
    model = trainer.strategy.model
    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model, writeback=False)
    return contextlib.nullcontext()
