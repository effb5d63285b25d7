"""The training of a selector, for the runner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from lightning.pytorch import Trainer

from icltool.components.learners.fitting.runner import BatchReport, Best, Record, Training
from icltool.components.learners.fitting.trainer import Settings, from_launcher
from icltool.components.learners.lever_lm import checkpoint as files
from icltool.components.learners.lever_lm.module import LeverLMModule, log_interval
from icltool.components.learners.lever_lm.networks import parameters_of
from icltool.contracts import Progress
from icltool.store.atomic import write_json

#: Steps between two updates of the progress bar's note.
NOTE_EVERY = 20


class LeverLMTraining(Training):
    """Writes last, min_vl and min_tl and the history after every validation, so that an interruption loses none.

    `beside_weights` returns the tensors that a checkpoint contains besides the weights of the selector's model; `config` is
    the content of config.json, `figures` are the card's figures of the data.
    """

    title, noun, closes = "train selector", "steps", "validation"
    bests: ClassVar = {"min_vl": Best("val_loss", largest=False), "min_tl": Best("train_loss", largest=False)}
    memory_hint = "lower --option batch_size or n_embd; if CLIP is trained, use grad_checkpointing=true"
    module: LeverLMModule

    def __init__(
        self,
        module: LeverLMModule,
        folder: Path,
        beside_weights: Callable[[], Mapping[str, torch.Tensor]],
        config: files.CheckpointConfig,
        figures: Mapping[str, int],
        progress: Progress,
    ) -> None:
        super().__init__(module, folder, progress, module.model.options.loggers)
        self.beside_weights, self.config, self.figures = beside_weights, config, figures

    def settings(self) -> Settings:
        """See Training."""
        options = self.module.model.options
        accelerator = options.trainer.get("accelerator", "auto")
        cuda = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
        return {
            "max_epochs": options.epochs,
            "devices": 1,
            "precision": options.precision or ("16-mixed" if cuda else "32-true"),
            # a share of the epoch, rounded up so that Lightning's rounding down of share x batches gives the exact number
            "val_check_interval": math.nextafter(1 / options.validations_per_epoch, 1),
            "num_sanity_val_steps": 0,
            "log_every_n_steps": log_interval(options),
            "use_distributed_sampler": False,  # EvenBatches distributes the rows
            "deterministic": "warn" if cuda else False,  # on CPU everything used here is deterministic
            **from_launcher(),
            **options.trainer,
        }

    def begin(self) -> None:
        """See Training."""
        files.remove_old(self.folder)
        files.write_config(self.folder, self.config)

    def write_last(self, history: Sequence[Record]) -> None:
        """See Training."""
        weights = {**self.module.model.state_dict(), **self.beside_weights()}
        metadata = {"format": "pt", **{key: repr(value) for key, value in history[-1].items()}}
        files.save_weights(self.weights(), weights, metadata)

    def write_others(self, history: Sequence[Record]) -> None:
        """See Training."""
        write_json(self.folder / files.HISTORY_FILE, list(history))
        towers, parameters = sorted(self.module.model.options.trained), parameters_of(self.module)
        files.write_card(self.folder, self.config, parameters, towers, history, self.figures)

    def report(self, trainer: Trainer, batch: int) -> BatchReport:
        """See Training. After the first validation the progress bar keeps its figures."""
        if self.module.figures or trainer.global_step % NOTE_EVERY:
            return BatchReport()
        return BatchReport(f"loss {float(self.module.mean_loss):.3f}")

    def describe(self, record: Record) -> str:
        """See Training."""
        return f"loss {record['train_loss']:.3f}, validation {record['val_loss']:.3f}"
