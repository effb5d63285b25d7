"""Fine-tuning of captioners as a Lightning module."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from icltool.components.learners.captioner.items import Batch, EpochOrder, Items, TrainingImages, loader
from icltool.components.learners.captioner.losses import smoothed_cross_entropy
from icltool.components.learners.captioner.matching import Matching
from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.components.learners.captioner.parts import TrainedParts, tunable_model
from icltool.components.learners.captioner.schedules import Moment, rate
from icltool.components.learners.captioner.scst import SelfCritical
from icltool.components.learners.fitting.processes import over_processes, without_share
from icltool.components.learners.fitting.runner import FittedModule
from icltool.contracts import Augmentation, FineTuningSet, Prompt, keyed_generator
from icltool.errors import ConfigError

Number = TypeVar("Number", float, Tensor)
#: The key of the module's own part in a saved state.
STATE = "captioner"


class CaptionerModule(FittedModule):
    """Minimises the cross-entropy of captions, or with `critic` the self-critical loss, and with `matching` that of a second
    task beside it. The loss of a batch is a mean over the tokens of all processes.

    `position` is (epoch, batch) of the next batch. `sums` are sums over this epoch's images so far, in this process. Dropout is
    seeded for every batch, so that it does not depend on earlier batches. The saved state contains trained parameters only.
    """

    strict_loading = False

    def __init__(
        self, data: FineTuningSet, items: Items, parts: TrainedParts, options: CaptionerOptions, seed: int,
        matching: Matching | None = None, critic: SelfCritical | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = tunable_model(data)
        self.network = self.model.network
        self.data, self.items, self.parts, self.options, self.seed = data, items, parts, options, seed
        self.matching, self.critic = matching, critic
        self.position = (0, 0)
        self.sums: dict[str, float] = {}
        self.rate = 0.0
        #: Tokens behind each loss of this process's batch, and the loss of the batch of all processes.
        self.counts: dict[str, int] = {}
        self.batch_loss = 0.0
        self._order: EpochOrder | None = None
        self._since = 0.0
        self._names = set(parts.names())

    def train(self, mode: bool = True) -> CaptionerModule:
        """Training mode, with frozen parts in eval mode."""
        super().train(mode)
        if mode:
            self.parts.train()
        return self

    def on_train_start(self) -> None:
        self.train()
        self._since = time.monotonic()

    def on_train_epoch_start(self) -> None:
        self._since = time.monotonic()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        if batch["error"] is not None:
            raise batch["error"]
        epoch, positions = self.current_epoch, batch["positions"]
        draw = keyed_generator(self.seed, f"captioner.torch.{epoch}.{self.global_rank}", batch_index)
        torch.manual_seed(int(draw.integers(2**62)))
        losses, reward = self.losses(positions, batch["pixels"], epoch)
        own = self._own(positions, batch_index)
        whole, images = self._whole(losses, reward, len(positions), own)
        self._count(whole, images, batch_index)
        loss = self._total(losses)
        # if no beam has tokens, there is no gradient either
        return loss if own and loss.requires_grad else without_share(loss, self.parts.trained.values())

    def _own(self, positions: Sequence[int], batch_index: int) -> int:
        """The number of items of this process's batch that count."""
        if self.trainer.world_size == 1:
            return len(positions)
        assert self._order is not None
        return self._order.own(batch_index)

    def _total(self, losses: Mapping[str, Number]) -> Number:
        """The loss that is minimised."""
        loss = losses["scst" if self.critic else "xe"]
        return loss if self.matching is None else loss + self.options.itm_alpha * losses["itm"]

    def _whole(
        self, losses: dict[str, Tensor], reward: float | None, images: int, own: int
    ) -> tuple[dict[str, float], float]:
        """(the losses and the reward of the batch over all processes; mean number of its images per process).

        `own` of this process's `images` count: all or none. Scales `losses` in place so that the average of all processes'
        gradients is that of the whole batch's losses.
        """
        weights = {name: float(self.counts.get(name, images)) for name in losses}
        values = {name: float(value.detach()) for name, value in losses.items()}
        if reward is not None:
            weights["reward"], values["reward"] = float(images), reward
        world = self.trainer.world_size
        if world == 1:
            return values, float(images)
        parts = [(values[name] * weights[name], weights[name]) if own else (0.0, 0.0) for name in values]
        sums = torch.tensor([*parts, (float(own), 0.0)], dtype=torch.float64, device=self.device)
        *totals, (of_all, _) = over_processes(self.trainer, sums).tolist()
        for name, (total, weight), (_, mine) in zip(values, totals, parts, strict=True):
            values[name] = total / weight
            if name in losses:
                losses[name] = losses[name] * (mine * world / weight)
        return values, of_all / world

    def losses(self, positions: Sequence[int], pixels: Tensor, epoch: int) -> tuple[dict[str, Tensor], float | None]:
        """(each loss of a batch by name; the mean reward, if any)."""
        examples = self.items.examples(positions)
        prompts = [self.model.prompt(self.data.task, (), example) for example in examples]
        losses: dict[str, Tensor] = {}
        reward: float | None = None
        if self.critic is not None:
            self.eval()
            sampled = self.model.sample_beams(prompts, pixels, self.data.generation)
            torch.clear_autocast_cache()  # drop weights cast without gradients
            self.train()
            losses["scst"], reward = self.critic.loss(examples, prompts, pixels, sampled)
        else:
            losses["xe"] = self.cross_entropy("xe", prompts, pixels)
        if self.matching is not None:
            questions = self.matching.prompts(self.model, positions, examples, epoch)
            losses["itm"] = self.cross_entropy("itm", questions, pixels)
        return losses, reward

    def cross_entropy(self, name: str, prompts: Sequence[Prompt], pixels: Tensor) -> Tensor:
        """Label-smoothed mean over the targets' tokens, whose number is stored in `counts` under this name."""
        batch = self.model.fine_tuning_batch(prompts, pixels, self.options.max_target_tokens)
        self.counts[name] = len(batch.tokens)
        return smoothed_cross_entropy(self.model.answer_logits(batch), batch.tokens, self.options.label_smoothing)

    def _count(self, values: Mapping[str, float], images: float, batch_index: int) -> None:
        figures = {"loss": float(self._total(values)), **values}
        self.batch_loss = figures["loss"]
        if not math.isfinite(figures["loss"]):
            raise ConfigError(
                f"training diverged: the loss of batch {batch_index + 1} of epoch {self.current_epoch + 1} is not a number",
                "lower --option lr, set --option clip, or choose another --option precision",
            )
        now = time.monotonic()
        added = {**{name: value * images for name, value in figures.items()}, "images": images}
        added["seconds"], self._since = now - self._since, now
        for name, value in added.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.position = (self.current_epoch, batch_index + 1)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        batch = self.position[1] - 1
        at = Moment(self.current_epoch, batch, self.global_step, int(self.trainer.estimated_stepping_batches))
        self.rate = rate(self.options, at)
        for group in optimizer.param_groups:
            group["lr"] = self.rate * group["scale"]

    def configure_optimizers(self) -> Optimizer:
        options = self.options
        groups = self.parts.groups(self.model.layer_ids(), options.layer_decay, options.weight_decay)
        return torch.optim.AdamW([dict(group) for group in groups], lr=options.lr, betas=options.betas)

    def train_dataloader(self) -> DataLoader[Batch]:
        options = self.options
        order = EpochOrder(
            len(self.items), options.batch_size, self.seed, self.trainer.world_size, self.trainer.global_rank
        )
        order.begin_at(*self.position)
        self._order = order
        varied = Augmentation(options.crop, options.crop_scale, options.shorter, options.flip)
        return loader(TrainingImages(self.items, self.model.pixel_reader(varied), self.seed), order, options.workers)

    def summarise(self) -> dict[str, float]:
        """The record of the epoch that has just ended: means over images, and images per second. Begins the next one."""
        sums = self._reduced()
        world = self.trainer.world_size
        count, seconds = sums.pop("images"), sums.pop("seconds") / world
        record = {"epoch": float(self.current_epoch + 1), "step": float(self.global_step)}
        record |= {f"train_{name}": total / count for name, total in sums.items()}
        speed = count / max(seconds, 1e-9)
        record |= {"images_per_second": speed, "images_per_second_per_device": speed / world}
        self.position, self.sums = (self.current_epoch + 1, 0), {}
        return record

    def images_per_second(self) -> float:
        """The speed of this process over the epoch so far."""
        return self.sums["images"] / max(self.sums["seconds"], 1e-9)

    def _reduced(self) -> dict[str, float]:
        """`sums` over all processes."""
        if self.trainer.world_size == 1:
            return dict(self.sums)
        totals = torch.tensor(list(self.sums.values()), dtype=torch.float64, device=self.device)
        reduced = self.trainer.strategy.reduce(totals, reduce_op="sum")
        return dict(zip(self.sums, reduced.tolist(), strict=True))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {
            name: value for name, value in state.items() if name.removeprefix("network.") in self._names
        }
        epoch, batch = self.position
        checkpoint[STATE] = {"epoch": epoch, "batch": batch, "sums": self._reduced()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = checkpoint[STATE]
        self.position = (own["epoch"], own["batch"])
        first = self.trainer.global_rank == 0
        self.sums = {name: value if first else 0.0 for name, value in own["sums"].items()}
