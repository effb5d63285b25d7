"""Runs the training of an intervention: Trainer, files after every epoch, going on after an interruption."""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerStatus

from icltool.components.interventions import files
from icltool.components.learners.lightning import (
    build_loggers,
    check_alike,
    check_half_precision,
    check_world,
    finish_runs,
    from_launcher,
    interruptible,
    keep_log,
    make_trainer,
    same_determinism,
    save_logs,
    seeded,
    together,
)
from icltool.components.learners.steering import card
from icltool.components.learners.steering.checkpointing import checkpointed
from icltool.components.learners.steering.module import SteeringModule
from icltool.components.learners.steering.options import SteeringOptions
from icltool.contracts import Progress, SteeringSet, Ticker, TrainingOutcome
from icltool.errors import ConfigError, StoreError

#: State of the training after its last whole epoch, to go on from.
RESUME = "resume.ckpt"
NOTE_EVERY = 10


class CheckpointCallback(Callback):
    """After every epoch: the intervention's file and card, and what it takes to go on. An interruption loses no epoch."""

    def __init__(self, method: str, folder: Path, record: Mapping[str, Any]) -> None:
        self.method, self.folder, self.record = method, folder, record
        self.history: list[dict[str, float]] = []
        self.going_on, self.world = False, 1

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.world = trainer.world_size
        check_alike(trainer, self.going_on, self.folder / RESUME)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "world": self.world}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.summarise()  # here, since callbacks come before the module's own hook
        figures = dict(pl_module.figures)
        self.history.append(figures)
        with _whole_parameters(trainer):
            if trainer.is_global_zero:
                told = {**self.record, "figures": {**self.record["figures"], **figures}}
                card.write_intervention(self.folder, self.method, pl_module.hooked, told, pl_module.student.tensors())
        temporary = self.folder / f".{RESUME}.new"
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step)
        save_logs(trainer.loggers)
        trainer.save_checkpoint(temporary, weights_only=False)  # in all processes: sharded strategies gather in it
        if trainer.is_global_zero:
            _remove(self.folder / RESUME, only_folders=True)
            temporary.replace(self.folder / RESUME)


def _whole_parameters(trainer: Trainer) -> contextlib.AbstractContextManager[Any]:
    """Within it the module's parameters are whole in every process, also where the strategy deals them out."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = trainer.strategy.model
    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model, writeback=False)
    return contextlib.nullcontext()


def _remove(path: Path, only_folders: bool = False) -> None:
    """Removes a checkpoint, which is a folder with strategies that write one file per process."""
    if path.is_dir():
        shutil.rmtree(path)
    elif not only_folders:
        path.unlink(missing_ok=True)


class Reporter(Callback):
    """Tells the progress how far training is."""

    def __init__(self, method: str, progress: Progress) -> None:
        self._method, self._progress = method, progress
        self._stack = contextlib.ExitStack()
        self._ticker: Ticker | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            batches = int(trainer.num_training_batches)
            total, done = batches * (trainer.max_epochs or 1), batches * trainer.current_epoch
            self._ticker = self._stack.enter_context(
                self._progress.task(f"train {self._method}", total, "batches", done=done)
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._ticker is None:
            return
        self._ticker.advance()
        if batch_idx % (getattr(trainer, "log_every_n_steps", 0) or NOTE_EVERY) == 0:
            loss = float(pl_module.batch_loss)
            self._ticker.note(f"loss {loss:.3f}")
            for logger in trainer.loggers:
                logger.log_metrics(
                    {"loss": loss, "lr": trainer.optimizers[0].param_groups[0]["lr"]}, trainer.global_step
                )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._ticker is not None:
            told = ", ".join(f"{k} {v:.4f}" for k, v in pl_module.figures.items() if k not in ("step", "epoch"))
            self._progress.detail(f"epoch {pl_module.figures['epoch']:.0f}: {told}")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._stack.close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._stack.close()


def fit(
    method: str,
    module: SteeringModule,
    folder: Path,
    seed: int,
    record: Mapping[str, Any],
    progress: Progress,
) -> TrainingOutcome:
    """Trains, from the last whole epoch on where `folder` holds one, and leaves file, card and logs in it.

    `record` is what the file and the card say of the training. Raises KeyboardInterrupt on Ctrl-C, with the file of the
    last whole epoch in place; ConfigError for Trainer options that Lightning refuses, a loss that is no number, and a GPU
    that is too small; StoreError for a saved state that is damaged, or of another number of processes.
    """
    options, keeper = module.options, CheckpointCallback(method, folder, record)
    callbacks: list[Callback] = [keeper, Reporter(method, progress)]
    resume = folder / RESUME
    world, step = _left_by(resume, keeper.state_key) if resume.exists() else (None, None)
    hint = "--option grad_checkpointing=true, a smaller batch_size (with a larger accumulate) or fewer shots take less"
    layers = getattr(module.hooked, "checkpointed_layers", module.hooked.decoder_layers)()
    with same_determinism(), seeded(seed):
        loggers = build_loggers(options.loggers, folder)
        trainer = make_trainer(trainer_settings(options, module.data), folder, loggers, callbacks)
        check_world(trainer, world, resume)
        keeper.going_on = resume.exists()
        if trainer.is_global_zero:  # only now, when nothing that was asked for is refused any more
            _begin(folder, resume, step, progress)
        try:
            with interruptible(hint), together(trainer), checkpointed(layers if options.grad_checkpointing else ()):
                trainer.fit(module, ckpt_path=resume if keeper.going_on else None, weights_only=True)
        finally:
            finish_runs(trainer.loggers)
    if trainer.state.status == TrainerStatus.INTERRUPTED:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        if not keeper.history:
            raise ConfigError(
                "training ended before its first epoch was whole", "give it more steps (--trainer max_steps)"
            )
        _remove(resume)
        _remove(folder / f".{RESUME}.new")
    return TrainingOutcome({"last": folder / files.WEIGHTS}, keeper.history)


def _begin(folder: Path, resume: Path, step: int | None, progress: Progress) -> None:
    """Removes what an earlier training left, or keeps the log of the one that goes on, up to where it does."""
    if not resume.exists():
        card.remove_old(folder)
        shutil.rmtree(folder / "logs", ignore_errors=True)
        return
    progress.say(f"going on after the last whole epoch in {resume}")
    keep_log(folder, step)


def _left_by(resume: Path, key: str) -> tuple[int | None, int | None]:
    """(how many processes left the state, at which optimisation step); None where it does not say so. StoreError for one that
    is damaged."""
    if resume.is_dir():
        return None, None
    try:
        state = torch.load(resume, map_location="cpu", weights_only=True)
        return state["callbacks"][key].get("world"), state.get("global_step")
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise StoreError(
            f"{resume} cannot be read: it is damaged ({type(error).__name__})", "--overwrite starts the training anew"
        ) from error


def trainer_settings(options: SteeringOptions, data: SteeringSet) -> dict[str, Any]:
    """What Lightning's Trainer is told: the user's options over ours."""
    device: torch.device = getattr(data.model, "device", torch.device("cpu"))
    layer: Any = data.model.decoder_layers()[0]  # type: ignore[attr-defined]
    check_half_precision(layer.parameters(), device)
    cuda = device.type == "cuda"
    own: dict[str, Any] = {
        "max_epochs": options.epochs,
        "accelerator": "gpu" if cuda else "cpu",
        "devices": [device.index or 0] if cuda else 1,
        "precision": options.precision or default_precision(data),
        "accumulate_grad_batches": options.accumulate,
        "gradient_clip_val": options.clip or None,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": NOTE_EVERY,
        "use_distributed_sampler": False,  # EpochBatches deals the examples out
        "deterministic": "warn" if cuda else False,
    }
    return {**own, **from_launcher(), **options.trainer}


def default_precision(data: SteeringSet) -> str:
    """Mixed precision of the kind that the model's weights are in; single precision for weights in float32."""
    layer: Any = data.model.decoder_layers()[0]  # type: ignore[attr-defined]
    dtype = next((p.dtype for p in layer.parameters() if p.is_floating_point()), torch.float32)  # not a quantized one
    return {torch.float16: "16-mixed", torch.bfloat16: "bf16-mixed"}.get(dtype, "32-true")
