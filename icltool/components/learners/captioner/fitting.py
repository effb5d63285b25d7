"""Runs the fine-tuning: Trainer, files, going on after an interruption."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerStatus

from icltool.components.learners.captioner import card
from icltool.components.learners.captioner.checkpointing import RESUME, CheckpointCallback
from icltool.components.learners.captioner.module import CaptionerModule
from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.components.learners.captioner.reporting import NOTE_EVERY, Reporter
from icltool.components.learners.captioner.validation import Validation
from icltool.components.learners.lightning import (
    build_loggers,
    check_half_precision,
    check_world,
    finish_runs,
    from_launcher,
    interruptible,
    keep_log,
    make_trainer,
    same_determinism,
    seeded,
    together,
)
from icltool.components.learners.steering.checkpointing import checkpointed
from icltool.contracts import Progress, TrainingOutcome, TuningSet
from icltool.errors import ConfigError, StoreError

_MEMORY_HINT = (
    "--option grad_checkpointing=true, a smaller batch_size (with a larger accumulate), image_size, or more parts in freeze "
    "take less"
)
_ANEW = "--overwrite starts the training anew"


def fit(
    module: CaptionerModule,
    validation: Validation,
    folder: Path,
    seed: int,
    about: Mapping[str, Any],
    progress: Progress,
) -> TrainingOutcome:
    """Trains, from the last saved step on where `folder` holds one, and leaves weights, card and logs in it.

    Raises KeyboardInterrupt on Ctrl-C and SIGTERM, with the state of the last step saved; ConfigError for Trainer options that
    Lightning refuses, a loss that is no number, and a GPU that is too small; StoreError for a saved state that is damaged, of
    another training, or of another number of processes.
    """
    options, data = module.options, module.data
    folder.mkdir(parents=True, exist_ok=True)
    keeper = CheckpointCallback(folder, data, about, validation, options, progress)
    callbacks: list[Callback] = [keeper, Reporter(progress)]
    resume = folder / RESUME
    world, step = _check_resumable(resume, about) if resume.exists() else (None, None)
    module.record = json.dumps(about, sort_keys=True)
    with same_determinism(), seeded(seed), tuned(module):
        trainer = make_trainer(
            trainer_settings(options, data), folder, build_loggers(options.loggers, folder), callbacks
        )
        _check_device(trainer, module.network)
        check_world(trainer, world, resume)
        keeper.going_on = resume.exists()
        if trainer.is_global_zero:  # only now, when nothing that was asked for is refused any more
            _begin(folder, resume, step, progress)
        try:
            with interruptible(_MEMORY_HINT), together(trainer):
                trainer.fit(module, ckpt_path=resume if keeper.going_on else None, weights_only=True)
        finally:
            finish_runs(trainer.loggers)
    if trainer.state.status == TrainerStatus.INTERRUPTED:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        if not (folder / card.BEST).is_file():
            raise ConfigError("training ended before its first validation", "give it more steps (--trainer max_steps)")
        resume.unlink(missing_ok=True)
        (folder / f".{RESUME}.new").unlink(missing_ok=True)
    return TrainingOutcome({"best": folder / card.BEST, "last": folder / card.LAST}, keeper.history)


def _check_device(trainer: Trainer, network: Any) -> None:
    """ConfigError where Lightning would move the network away from where the model reads its inputs."""
    places = {parameter.device for parameter in network.parameters()}
    root = trainer.strategy.root_device
    if len(places) > 1:
        raise ConfigError(
            f"the model is spread over {len(places)} devices, and is trained on one, or copied to each",
            "leave --device-map out; --trainer devices=N with one copy each needs no more",
        )
    (place,) = places
    if (place.type, place.index or 0) != (root.type, root.index or 0):
        raise ConfigError(
            f"the model was loaded on {place}, and Lightning would train it on {root}",
            "leave --device out with --trainer devices=N, or leave --trainer accelerator and devices out",
        )


@contextmanager
def tuned(module: CaptionerModule) -> Iterator[None]:
    """Within it the network is ready to be trained; afterwards it is on its device, in eval mode and without gradients."""
    network, options = module.network, module.options
    device = next(network.parameters()).device
    module.parts.prepare()
    try:
        with _checkpointing(module) if options.grad_checkpointing else nullcontext():
            yield
    finally:
        if next(network.parameters()).device != device:
            network.to(device)  # Lightning leaves it on the CPU
        module.parts.restore()


@contextmanager
def _checkpointing(module: CaptionerModule) -> Iterator[None]:
    """Within it activations are computed twice. ConfigError for a network that cannot."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    network = module.network
    # the second name is that of transformers until 5.23
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next((getattr(network, name) for name in names if hasattr(network, name)), None)
    try:
        if enable is None:
            raise ValueError("it has no such method")
        enable({"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(
            f"the model cannot compute activations twice: {error}", "--option grad_checkpointing=false"
        ) from error
    # transformers does so in training mode alone, and frozen parts, through which gradients pass, are in eval mode
    frozen = [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, GradientCheckpointingLayer) and module.parts.is_frozen(name)
    ]
    try:
        with checkpointed(frozen):
            yield
    finally:
        getattr(network, "activation_checkpointing_disable", network.gradient_checkpointing_disable)()


def trainer_settings(options: CaptionerOptions, data: TuningSet) -> dict[str, Any]:
    """What Lightning's Trainer is told: the user's options over ours."""
    network: Any = data.model.network  # type: ignore[attr-defined]
    device = next(network.parameters()).device
    cuda = device.type == "cuda"
    if cuda:  # "deterministic" would fill every new tensor first
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    own: dict[str, Any] = {
        "max_epochs": options.epochs,
        "accelerator": "gpu" if cuda else "cpu",
        "devices": [device.index or 0] if cuda else 1,
        "precision": options.precision or default_precision(network),
        "accumulate_grad_batches": options.accumulate,
        "gradient_clip_val": options.clip or None,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": NOTE_EVERY,
        "use_distributed_sampler": False,  # EpochOrder deals the items out
        "deterministic": "warn" if cuda else False,
    }
    check_half_precision(network.parameters(), device)
    settings = {**own, **from_launcher(), **options.trainer}
    if settings["devices"] not in (1, "1", own["devices"]) or int(settings.get("num_nodes", 1)) > 1:
        # not every batch needs every parameter
        settings["strategy"] = options.trainer.get("strategy", "ddp_find_unused_parameters_true")
    return settings


def default_precision(network: Any) -> str:
    """Mixed precision of the kind that the model's weights are in; single precision for weights in float32."""
    kinds = {parameter.dtype for parameter in network.parameters() if parameter.is_floating_point()}
    for dtype, name in ((torch.bfloat16, "bf16-mixed"), (torch.float16, "16-mixed")):
        if dtype in kinds:
            return name
    return "32-true"


def _begin(folder: Path, resume: Path, step: int | None, progress: Progress) -> None:
    """Removes what an earlier training left, or keeps the log of the one that goes on, up to where it does."""
    if not resume.exists():
        for name in (card.BEST, card.LAST, card.CARD):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "logs", ignore_errors=True)
        return
    progress.say(f"going on after the last saved step in {resume}")
    keep_log(folder, step)


def _check_resumable(resume: Path, about: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(how many processes left the state, at which optimisation step), as far as it says so."""
    try:
        state = torch.load(resume, map_location="cpu", weights_only=True, mmap=True)
        record = state["captioner"]["record"]
        world, step = state["captioner"].get("world"), state.get("global_step")
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise StoreError(f"{resume} cannot be read: it is damaged ({type(error).__name__})", _ANEW) from error
    if record != json.dumps(about, sort_keys=True):
        raise StoreError(f"{resume} is of a training with other options or data", _ANEW)
    return world, step
