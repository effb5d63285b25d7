"""The training of an intervention by gradients, for the runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from icltool.components.learners.fitting import trainer as fitting
from icltool.components.learners.fitting.runner import BatchReport, Record, Training
from icltool.components.learners.interventions import card
from icltool.components.learners.interventions.answers import device_of
from icltool.components.learners.interventions.checkpointing import checkpointed
from icltool.components.learners.interventions.module import InterventionModule
from icltool.components.learners.interventions.options import InterventionOptions
from icltool.contracts import InterventionSet, Progress
from icltool.contracts.intervention import NamesCheckpointedLayers


class InterventionTraining(Training):
    """Writes the intervention's file and its card after every epoch, with `about` as the record of the training."""

    memory_hint = "try --option grad_checkpointing=true, a smaller batch_size (with a larger accumulate) or fewer shots"
    module: InterventionModule

    def __init__(
        self, method: str, module: InterventionModule, folder: Path, about: card.About, progress: Progress
    ) -> None:
        super().__init__(module, folder, progress, module.options.loggers)
        self.title, self.method, self.about = f"train {method}", method, about

    def settings(self) -> fitting.Settings:
        """See Training."""
        return trainer_settings(self.module.options, self.module.data)

    def prepared(self) -> AbstractContextManager[object]:
        """See Training."""
        hooked = self.module.hooked
        layers = (
            hooked.checkpointed_layers() if isinstance(hooked, NamesCheckpointedLayers) else hooked.decoder_layers()
        )
        return checkpointed(layers if self.module.options.grad_checkpointing else ())

    def begin(self) -> None:
        """See Training."""
        card.remove_old(self.folder)

    def write_last(self, history: Sequence[Record]) -> None:
        """See Training."""
        about: card.About = {**self.about, "figures": {**self.about["figures"], **history[-1]}}
        card.write_intervention(self.folder, self.method, self.module.hooked, about, self.module.student.tensors())

    def report(self, trainer: Trainer, batch: int) -> BatchReport:
        """See Training."""
        if batch % fitting.note_interval(trainer):
            return BatchReport()
        loss = float(self.module.batch_loss)
        return BatchReport(f"loss {loss:.3f}", {"loss": loss, "lr": trainer.optimizers[0].param_groups[0]["lr"]})

    def describe(self, record: Record) -> str:
        """See Training."""
        return ", ".join(f"{k} {v:.4f}" for k, v in record.items() if k not in ("epoch", "step"))


def trainer_settings(options: InterventionOptions, data: InterventionSet) -> Mapping[str, object]:
    """Options of Lightning's Trainer; the user's options take precedence."""
    layer: torch.nn.Module = data.model.decoder_layers()[0]  # type: ignore[attr-defined]
    return fitting.trainer_settings(options, list(layer.parameters()), device_of(data.model))
