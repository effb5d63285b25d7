"""One of two processes that train twice, the second time with a loss that overflows where a process has no share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from icltool.components.learners.live.options import LiveOptions
from icltool.contracts import Example

#: Of 9 examples in batches of 2 x 4 the last batch has one.
EXAMPLES, TRAINER = 9, {"accelerator": "cpu", "devices": 2}


def overflowing(kind: Any, own: Any, seen: list[int]) -> None:
    """Makes the modules of this kind lose their numbers; `own` tells how many items of a batch count."""
    losses, step = kind.losses, kind.training_step

    def training_step(self: Any, batch: Any, batch_index: int) -> Any:
        self.shares = own(self)(batch_index)
        return step(self, batch, batch_index)

    def lost(self: Any, *arguments: Any) -> dict[str, Any]:
        actual = losses(self, *arguments)
        if self.shares:
            return dict(actual)
        seen.append(self.global_step)
        return {name: value * torch.inf for name, value in actual.items()}

    kind.training_step, kind.losses = training_step, lost


def live(examples: Sequence[Example], folder: Path) -> None:
    from icltool.components.learners.live.learner import Live
    from icltool.plugin.manager import component
    from tests.components.learners.interventions.sets import SMALL, intervention_set
    from tests.components.learners.synthetic import RecordingProgress

    data = intervention_set(component("models", "tiny-idefics", device="cpu"), examples)
    learner = Live(LiveOptions(**{**SMALL, "max_train_size": EXAMPLES, "trainer": {**TRAINER, "strategy": "ddp"}}))
    learner.learn_intervention(data, folder, 3, RecordingProgress())


def captioner(examples: Sequence[Example], folder: Path) -> None:
    from tests.components.learners.captioner.sets import fine_tuned, fine_tuning_set

    fine_tuned(fine_tuning_set(examples), folder, captions="first", max_train_size=EXAMPLES, itm=True, trainer=TRAINER)


def train(learner: str, examples: Sequence[Example], folder: Path) -> None:
    """Leaves the trainings `plain` and `overflowing` in the folder."""
    from icltool.components.learners.captioner.module import CaptionerModule
    from icltool.components.learners.interventions.module import InterventionModule

    trained = {"live": live, "captioner": captioner}[learner]
    trained(examples, folder / "plain")
    seen: list[int] = []
    overflowing(InterventionModule, lambda module: module._batches.own, seen)
    overflowing(CaptionerModule, lambda module: module._order.own, seen)
    trained(examples, folder / "overflowing")
    rank = torch.distributed.get_rank()
    torch.distributed.barrier()  # none leaves while the other still needs it
    assert len(seen) == 2 * rank, seen  # in the last batch of each epoch
