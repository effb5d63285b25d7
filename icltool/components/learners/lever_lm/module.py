"""Lever-LM as a Lightning module: steps, optimiser, batches."""

from __future__ import annotations

import math

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader

from icltool.components.learners.fitting.processes import over_processes
from icltool.components.learners.fitting.runner import FittedModule
from icltool.components.learners.fitting.trainer import NOTE_EVERY, scheduled
from icltool.components.learners.lever_lm.clip import BatchOpener, OnlineClip, OpenedBatch, OpenedBatches, thread_count
from icltool.components.learners.lever_lm.model import Features, SelectorModel
from icltool.components.learners.lever_lm.options import LeverLMOptions
from icltool.components.learners.lever_lm.rows import Batch, EvenBatches, RowDataset, Rows
from icltool.contracts import keyed_generator
from icltool.errors import ConfigError


class LeverLMModule(FittedModule):
    """Trains a selector's model on rows whose features are gathered from one table per modality.

    `table` contains the stored embeddings [N, D], `codes` int64 [2, N] the index set's image ids and groups. The modalities
    for which `clip` has towers are encoded in every step instead; `opener` then opens their inputs.

    After each validation `figures` holds its record: step, epoch, train_loss (mean per token since the validation
    before, dropout on), val_loss (mean per token, dropout off), lr.
    """

    def __init__(
        self,
        model: SelectorModel,
        table: Features,
        codes: Tensor,
        train: Rows,
        validation: Rows,
        seed: int,
        clip: OnlineClip | None = None,
        opener: BatchOpener | None = None,
    ) -> None:
        super().__init__()
        self.model, self.train_rows, self.validation_rows, self.seed = model, train, validation, seed
        self.clip, self.opener = clip, opener
        self.figures: dict[str, float] = {}
        # plain tensors, since distributed training would broadcast buffers in every step
        self._table, self._codes = dict(table), codes
        self._train_sums = self._validation_sums = torch.zeros(2)
        #: The mean loss per token of the batch of all processes.
        self.mean_loss = torch.tensor(0.0)

    def on_train_start(self) -> None:
        dtype = next(self.model.parameters()).dtype  # only now, since a precision such as bf16-true changes it
        self._table = {modality: features.to(self.device, dtype) for modality, features in self._table.items()}
        self._codes = self._codes.to(self.device)
        self._train_sums = torch.zeros(
            2, dtype=torch.float32 if self.device.type == "mps" else torch.float64, device=self.device
        )
        self._validation_sums = torch.zeros_like(self._train_sums)
        if self.global_rank:  # process 0 draws as a single process does; the others must draw different dropout
            torch.manual_seed(int(keyed_generator(self.seed, "lever-lm.dropout", self.global_rank).integers(2**62)))

    def batch_loss(self, batch: Batch | OpenedBatch) -> tuple[Tensor, Tensor]:
        """(summed loss, predicted tokens) of a batch."""
        if isinstance(batch, OpenedBatch):
            assert self.clip is not None
            return self.model.batch_loss(batch.batch, {**self._table, **self.clip(batch.opened)}, self._codes)
        return self.model.batch_loss(batch, self._table, self._codes)

    def training_step(self, batch: Batch | OpenedBatch, batch_index: int) -> Tensor:
        total, count = self.batch_loss(batch)
        sums = torch.stack([total.detach(), count]).to(self._train_sums)
        self._train_sums += sums
        whole = over_processes(self.trainer, sums)
        self.mean_loss = whole[0] / whole[1]
        if self.trainer.is_global_zero and (self.global_step + 1) % log_interval(self.model.options) == 0:
            figures = {"train_loss_step": float(self.mean_loss), "lr": self._learning_rate()}
            for logger in self.trainer.loggers:
                logger.log_metrics(figures, step=self.global_step)
        # gradients are averaged over processes, which then gives that of the mean over all tokens
        return total * self.trainer.world_size / whole[1].to(total.dtype)

    def on_validation_epoch_start(self) -> None:
        self._validation_sums.zero_()

    def validation_step(self, batch: Batch | OpenedBatch, batch_index: int) -> None:
        total, count = self.batch_loss(batch)
        self._validation_sums += torch.stack([total, count]).to(self._validation_sums)

    def on_validation_epoch_end(self) -> None:
        train, validation = (over_processes(self.trainer, sums) for sums in (self._train_sums, self._validation_sums))
        self._train_sums.zero_()
        self.figures = {
            "step": float(self.global_step),
            "epoch": self._epochs_done(),
            "train_loss": float(train[0] / train[1]),
            "val_loss": float(validation[0] / validation[1]),
            "lr": self._learning_rate(),
        }
        if not math.isfinite(self.figures["val_loss"]):
            raise ConfigError(
                f"training diverged: the validation loss is {self.figures['val_loss']} after {self.global_step} steps",
                "lower the learning rate, as in --option lr=3e-5, or use --option precision=32-true",
            )
        self.log_dict(
            {"train_loss": self.figures["train_loss"], "val_loss": self.figures["val_loss"]}, rank_zero_only=True
        )

    def summarise(self) -> dict[str, float]:
        """See FittedModule."""
        return dict(self.figures)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options = self.model.options
        on_cpu = self.device.type == "cpu"
        # fused is fastest on CPU; on CUDA Lightning refuses it together with fp16 gradient clipping
        groups: list[dict[str, object]] = [{"params": list(self.model.parameters()), "lr": options.lr}]
        if self.clip is not None and self.clip.trained:
            trained = [p for p in self.clip.parameters() if p.requires_grad]
            groups.append({"params": trained, "lr": options.encoder_lr or options.lr})
        optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay, fused=True if on_cpu else None)
        return scheduled(optimizer, self.trainer, options.warmup)

    def train_dataloader(self) -> DataLoader[Batch] | OpenedBatches:
        return self._loader(self.train_rows, shuffle=True, multiple=self.model.options.validations_per_epoch)

    def val_dataloader(self) -> DataLoader[Batch] | OpenedBatches:
        return self._loader(self.validation_rows, shuffle=False, multiple=1)

    def _loader(self, rows: Rows, shuffle: bool, multiple: int) -> DataLoader[Batch] | OpenedBatches:
        batches = EvenBatches(
            len(rows),
            self.model.options.batch_size,
            multiple=multiple,
            shuffle=shuffle,
            seed=self.seed,
            world=self.trainer.world_size,
            rank=self.trainer.global_rank,
        )
        loader = DataLoader(RowDataset(rows), sampler=batches, batch_size=None)
        if self.opener is None:
            return loader
        return OpenedBatches(loader, self.opener, thread_count(self.model.options.workers))

    def _learning_rate(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def _epochs_done(self) -> float:
        batches = float(self.trainer.num_training_batches)
        loop = self.trainer.fit_loop.epoch_loop
        return round(self.current_epoch + (loop.batch_idx + 1) / batches, 4) if batches else float(self.current_epoch)


def log_interval(options: LeverLMOptions) -> int:
    """Training steps between two entries of the loggers."""
    return int(options.trainer.get("log_every_n_steps") or NOTE_EVERY)
