"""The fine-tuning of a captioner, for the runner."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

import torch
from lightning.pytorch import Trainer

from icltool.components.learners.captioner import card
from icltool.components.learners.captioner.module import STATE, CaptionerModule
from icltool.components.learners.captioner.validation import Validation
from icltool.components.learners.fitting import trainer as fitting
from icltool.components.learners.fitting.runner import BatchReport, Best, Record, Training
from icltool.components.learners.interventions.checkpointing import checkpointed
from icltool.contracts import Progress
from icltool.errors import ConfigError


class CaptionerTraining(Training):
    """Writes last.safetensors after every epoch, validates if due, and writes the best weights and the card. `about` is the
    record of the training in these files."""

    title = "train captioner"
    bests: ClassVar = {"best": Best("selected")}
    saves_steps = True
    memory_hint = (
        "try --option grad_checkpointing=true, a smaller batch_size (with a larger accumulate) or image_size, or freeze more "
        "parts"
    )
    earlier_part = STATE
    module: CaptionerModule

    def __init__(
        self, module: CaptionerModule, validation: Validation, folder: Path, about: card.About, progress: Progress
    ) -> None:
        options = module.options
        super().__init__(module, folder, progress, options.loggers)
        self.validation, self.about, self.options = validation, about, options
        self.save_every, self.patience = options.save_every, options.patience
        self.identity = json.dumps(about, sort_keys=True)

    def settings(self) -> fitting.Settings:
        """See Training."""
        network, options = self.module.network, self.options
        parameters = list(network.parameters())
        device = parameters[0].device
        if device.type == "cuda":  # "deterministic" would fill every new tensor first
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        settings = fitting.trainer_settings(options, parameters, device)
        alone = (1, "1", [device.index or 0] if device.type == "cuda" else 1)
        if settings["devices"] not in alone or int(settings.get("num_nodes", 1)) > 1:
            # not every batch needs every parameter
            settings["strategy"] = options.trainer.get("strategy", "ddp_find_unused_parameters_true")
        return settings

    def prepared(self) -> AbstractContextManager[object]:
        """See Training."""
        return fine_tuned(self.module)

    def check(self, trainer: Trainer) -> None:
        """See Training."""
        _check_device(trainer, self.module.network)

    def begin(self) -> None:
        """See Training."""
        for path in (self.weights(), *map(self.weights, self.bests), self.folder / card.CARD):
            path.unlink(missing_ok=True)

    def needs_validation(self, record: Record) -> bool:
        """See Training."""
        return record["epoch"] % self.options.validate_every == 0 or record["epoch"] == self.module.trainer.max_epochs

    def validated(self, record: Record) -> Record:
        """See Training."""
        return {**record, **self.validation.figures(self.module, self.progress)}

    def write_last(self, history: Sequence[Record]) -> None:
        """See Training."""
        about: Mapping[str, object] = {**self.about, "figures": card.lasting(history[-1])}
        self.module.model.save_fine_tuned(self.weights(), self.module.parts.names(), about)

    def write_others(self, history: Sequence[Record]) -> None:
        """See Training."""
        best = self.bests["best"].place(history)
        if best is not None:
            card.write_card(self.folder, self.module.data, self.about, history[best], history[-1])

    def batches_done(self, trainer: Trainer) -> int:
        """See Training."""
        epoch, batch = self.module.position
        return int(trainer.num_training_batches) * epoch + batch

    def report(self, trainer: Trainer, batch: int) -> BatchReport:
        """See Training."""
        done, every, module = batch + 1, fitting.note_interval(trainer), self.module
        is_last, note, figures = done == trainer.num_training_batches, "", {}
        if done % every == 0 or is_last:
            each = module.images_per_second()
            whole = each * trainer.world_size
            note = f"loss {module.batch_loss:.3f}, {each:.1f} images/s per device, {whole:.1f} in all"
        stepped = done % trainer.accumulate_grad_batches == 0 or is_last
        if stepped and (trainer.global_step - 1) % every == 0:
            figures = {"loss": module.batch_loss, "lr": module.rate}
        return BatchReport(note, figures)

    def describe(self, record: Record) -> str:
        """See Training."""
        return ", ".join(f"{k} {v:.4g}" for k, v in record.items() if k not in ("epoch", "step"))


def _check_device(trainer: Trainer, network: torch.nn.Module) -> None:
    """Raises ConfigError if Lightning would move the network to another device than that of the model's inputs."""
    places = {parameter.device for parameter in network.parameters()}
    root = trainer.strategy.root_device
    if len(places) > 1:
        raise ConfigError(
            f"the model is spread over {len(places)} devices, but training needs it on one, or a copy on each",
            "leave out --device-map; use --trainer devices=N for one copy on each device",
        )
    (place,) = places
    if (place.type, place.index or 0) != (root.type, root.index or 0):
        raise ConfigError(
            f"the model was loaded on {place}, but Lightning would train it on {root}",
            "leave out --device with --trainer devices=N, or leave out --trainer accelerator and devices",
        )


@contextmanager
def fine_tuned(module: CaptionerModule) -> Iterator[None]:
    """A context in which the network is ready for training; afterwards it is on its device, in eval mode, without gradients."""
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
    """A context with gradient checkpointing. Raises ConfigError for a network that does not support it."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    network = module.network
    # the second is the name in transformers until 5.23
    names = ("activation_checkpointing", "gradient_checkpointing")
    name = next((name for name in names if hasattr(network, f"{name}_enable")), None)
    try:
        if name is None:
            raise ValueError("it has no such method")
        getattr(network, f"{name}_enable")({"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(
            f"the model does not support gradient checkpointing: {error}", "use --option grad_checkpointing=false"
        ) from error
    # transformers does so in training mode only, but frozen parts, through which gradients pass, are in eval mode
    frozen = [
        layer
        for place, layer in network.named_modules()
        if isinstance(layer, GradientCheckpointingLayer) and module.parts.is_frozen(place)
    ]
    try:
        with checkpointed(frozen):
            yield
    finally:
        getattr(network, f"{name}_disable")()
