"""The training of an intervention as a Lightning module: the student learns the teacher's answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypedDict

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from icltool.components.learners.fitting.processes import over_processes, without_share
from icltool.components.learners.fitting.runner import FittedModule
from icltool.components.learners.fitting.trainer import scheduled
from icltool.components.learners.interventions.answers import features_of, hooked_model
from icltool.components.learners.interventions.draws import Draws
from icltool.components.learners.interventions.losses import cross_entropy, divergence
from icltool.components.learners.interventions.options import InterventionOptions
from icltool.components.learners.interventions.order import EpochBatches
from icltool.components.learners.interventions.teacher import Teacher
from icltool.contracts import AnswerBatch, InterventionSet
from icltool.errors import ConfigError


class ParameterGroup(TypedDict, total=False):
    """Parameters of AdamW with a common peak learning rate `lr`, and a weight decay if it differs from that of the options."""

    params: list[torch.nn.Parameter]
    lr: float
    weight_decay: float


class Student(torch.nn.Module):
    """The trained part: only its parameters have gradients."""

    @abstractmethod
    def groups(self) -> list[ParameterGroup]:
        """Parameter groups of the optimiser, each with its peak learning rate."""

    @abstractmethod
    def applied(self) -> AbstractContextManager[None]:
        """A context in which the intervention is applied to the model, with gradients to the parameters."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the intervention's file."""


class InterventionModule(FittedModule):
    """Minimises KL(teacher || student) x T^2 + `hard_loss_weight` x cross-entropy over the tokens of the answers, from the
    first of the target to the one that ends it (LIVE, section 3.2). The loss of a batch is the mean over its tokens in all
    processes.

    The teacher reads demonstrations, the student none. The LVLM is not a submodule: it is frozen, and neither saved nor
    moved. `figures` are the means over the last epoch.
    """

    #: Whether the loss compares distributions; otherwise the teacher is not run.
    distils = True

    def __init__(
        self, student: Student, data: InterventionSet, draws: Draws, options: InterventionOptions, seed: int
    ) -> None:
        super().__init__()
        self.student = student
        self.data, self.draws, self.options, self.seed = data, draws, options, seed
        self.hooked = hooked_model(data, "an intervention")
        self.teacher = Teacher(data, draws, options)
        self.figures: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._batches: EpochBatches | None = None
        #: Tokens of the answers of this process's batch, and the mean loss over those of all processes.
        self.tokens, self.batch_loss = 0, torch.tensor(0.0)
        self.log_temperature: torch.nn.Parameter | None = None
        if options.temperature_schedule == "learned":
            self.log_temperature = torch.nn.Parameter(torch.tensor(float(options.temperature)).log())

    def temperature(self) -> float | Tensor:
        """The temperature of the next step; a learned one with its gradient."""
        if self.log_temperature is not None:
            return self.log_temperature.exp()
        if self.options.temperature_schedule == "decay":
            done = self.global_step / max(int(self.trainer.estimated_stepping_batches), 1)
            return self.options.temperature + (1 - self.options.temperature) * min(done, 1.0)
        return self.options.temperature

    def training_step(self, positions: list[int], batch_index: int) -> Tensor:
        losses = self.losses(positions)
        total = self.total(losses)
        own = self._own(positions, batch_index)
        means, examples, factor = self._over_processes(total, losses, own)
        # the gradient scaler skips a step that overflowed in half precision: it is counted, but left out of means
        finite = torch.isfinite(means[0]).float()
        added = dict(zip(("loss", *losses), means, strict=True))
        for name, value in {**added, "examples": torch.ones_like(finite)}.items():
            weighted = torch.nan_to_num(value, 0.0, 0.0, 0.0) * finite * examples
            self._sums[name] = self._sums.get(name, torch.zeros_like(weighted)) + weighted
        self._sums["lost"] = self._sums.get("lost", torch.zeros_like(finite)) + (1 - finite) * examples
        self.batch_loss = means[0]
        return total * factor if own else without_share(total, self.parameters())

    def _own(self, positions: Sequence[int], batch_index: int) -> int:
        """The number of examples of this process's batch that count."""
        if self.trainer.world_size == 1:
            return len(positions)
        assert self._batches is not None
        return self._batches.own(batch_index)

    def _over_processes(
        self, total: Tensor, losses: dict[str, Tensor], own: int
    ) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """(means of the loss and its parts over the tokens of all processes; mean number of examples per process; the factor
        of this process's loss by which the average of all gradients is that of the mean over all tokens)."""
        parts = torch.stack([value.detach().float() for value in (total, *losses.values())])
        world = self.trainer.world_size
        if world == 1:
            return parts, float(own), 1.0
        tokens = self.tokens if own else 0
        # zeros, not a product with 0, which would keep values that are not finite
        weighted = parts * tokens if own else torch.zeros_like(parts)
        whole = over_processes(self.trainer, torch.cat([weighted, parts.new_tensor([tokens, own])]))
        return whole[:-2] / whole[-2], whole[-1] / world, (tokens * world / whole[-2]).to(total)

    def losses(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """Each part of the loss, unweighted: means over the answers' tokens in nats.

        The teacher comes first, so that its long prompts are read before memory is used for the student's backward pass.
        """
        temperature = self.temperature()
        answers = self.teacher.answers(positions, self.current_epoch, temperature) if self.distils else None
        batch, logits = self.student_answers(positions)
        self.tokens = len(batch.tokens)
        losses = {"cross_entropy": cross_entropy(logits, batch.tokens)}
        if answers is not None:
            self.teacher.expect_targets(positions, batch.tokens)
            losses["divergence"] = divergence(answers, logits, temperature)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The loss that is minimised."""
        weighted = self.options.hard_loss_weight * losses["cross_entropy"]
        return weighted + losses["divergence"] if "divergence" in losses else weighted

    def student_answers(self, positions: Sequence[int]) -> tuple[AnswerBatch, Tensor]:
        """(batch, logits [N, vocabulary]) of the examples' prompts without demonstrations, under the intervention."""
        prompts = self.draws.plain_prompts(positions)
        batch = self.hooked.answer_batch(prompts, features_of(self.data, prompts))
        with self.student.applied():
            return batch, self.hooked.answer_logits(batch)

    def backward(self, loss: Tensor, *args: object, **kwargs: object) -> None:
        """The backward pass, in which checkpointed layers run again under the intervention."""
        with self.student.applied() if self.options.grad_checkpointing else nullcontext():
            super().backward(loss, *args, **kwargs)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.log_temperature is not None:  # below 1 its square would lower the loss, whatever the distributions are
            self.log_temperature.data.clamp_(min=0)

    def on_train_epoch_start(self) -> None:
        self._sums = {}
        if self._batches is not None:
            self.data.expect(self._paths(self._batches))

    def summarise(self) -> dict[str, float]:
        """The means over the epoch that has just ended, over all processes; also stored in `figures`."""
        sums = {name: over_processes(self.trainer, total) for name, total in self._sums.items()}
        count, lost = float(sums.pop("examples")), float(sums.pop("lost"))
        if lost > count:
            raise ConfigError(
                f"training diverged: no finite loss for {lost:.0f} of {lost + count:.0f} examples of an epoch",
                "lower --option lr, or choose another --option precision",
            )
        self.figures = {"step": float(self.global_step), "epoch": float(self.current_epoch + 1)}
        self.figures |= {name: float(total) / count for name, total in sums.items()}
        if self.log_temperature is not None:
            with torch.no_grad():
                self.figures["temperature"] = float(self.temperature())
        return dict(self.figures)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options = self.options
        groups = self.student.groups()
        if self.log_temperature is not None:
            groups.append({"params": [self.log_temperature], "lr": options.lr, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(
            [dict(group) for group in groups], lr=options.lr, weight_decay=options.weight_decay
        )
        return scheduled(optimizer, self.trainer, options.warmup)

    def train_dataloader(self) -> DataLoader[list[int]]:
        self._batches = EpochBatches(
            len(self.draws),
            self.options.batch_size,
            self.seed,
            self.trainer.world_size,
            self.trainer.global_rank,
            fixed_shares=self.distils and self.options.teacher_draws is not None,
        )
        return DataLoader(_Positions(), sampler=self._batches, batch_size=None)

    def _paths(self, batches: EpochBatches) -> Iterator[str]:
        """Images in the order in which this epoch needs them, including those of demonstrations for answers not cached."""
        batches.set_epoch(self.current_epoch)
        draw = self.teacher.draw(self.current_epoch)
        for positions in batches:
            uncached = [p for p in positions if self.distils and not self.teacher.has_cached(p, self.current_epoch)]
            demonstrations = [
                q for p in uncached for q in self.draws.demonstrations(p, self.options.shots, draw).tolist()
            ]
            yield from (
                image for example in self.draws.examples([*demonstrations, *positions]) for image in example.images
            )


class _Positions(Dataset[list[int]]):
    """Loads only a batch's positions; the training step builds the prompts."""

    def __getitem__(self, positions: Iterable[int]) -> list[int]:
        return list(positions)
