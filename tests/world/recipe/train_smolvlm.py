"""Trains `tiny-smolvlm` from scratch on easy-VQA's public images and questions.

First the vision tower alone, as a classifier; then the whole model by a curriculum of episodes, with a head on the text
model's second layer and one on the vision tower that predict the true answers and are dropped afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tests.world.recipe.easy_episodes import CLASSES, EasyLevel, EasyPool, Turn, class_range, draw_turns
from tests.world.recipe.smolvlm import (
    END,
    FAKE,
    GLOBAL,
    HIDDEN,
    IMAGE,
    IMAGE_TOKENS,
    REQUEST,
    START,
    VISION_HIDDEN,
    build_processor,
    build_smolvlm,
    save_smolvlm,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, SmolVLMForConditionalGeneration

Report = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class SmolRecipe:
    """Everything that decides the result."""

    steps: int = 500
    horizon: int = 1000
    cooldown: int = 150
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 50
    vision_steps: int = 600
    vision_batch: int = 128
    vision_trained: int = 150
    fixed_share: float = 0.3
    auxiliary_weight: float = 0.5
    checkpoint_every: int = 50
    seed: int = 0

    def fixed(self, step: int) -> float:
        """The share of episodes with the fixed lexicon, which fades out between 20 and 30 % of the horizon."""
        return self.fixed_share * max(0.0, min(1.0, (0.3 * self.horizon - step) / (0.1 * self.horizon)))

    def shots(self, step: int) -> tuple[int, int]:
        """The fewest and the most demonstrations of an episode."""
        return (2, 5) if step < 0.2 * self.horizon else (3, 8)

    def episode_rate(self, step: int) -> float:
        """The learning rate of a step on episodes: a cosine over the horizon, which a linear cool-down ends at `steps`."""
        return self.rate(step, self.horizon) * min(1.0, (self.steps - step) / self.cooldown)

    def rate(self, step: int, steps: int) -> float:
        """Linear warm-up, then cosine to 2 % of the peak."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass
class Curriculum:
    """One value of a kind at first, one more when over 70 % of the last 20 steps' words are right, or after 75 steps."""

    values: int = 1
    since: int = 0
    right: list[float] = field(default_factory=list)

    def step(self, right: float) -> None:
        self.right = [*self.right[-19:], right]
        self.since += 1
        good = len(self.right) == 20 and sum(self.right) / 20 > 0.7
        if self.values < 8 and ((self.since >= 25 and good) or self.since >= 75):
            self.values, self.since = self.values + 1, 0


class EpisodeEncoder:
    """Turns episodes into tensors, with the tokens that the chat template and the processor write."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer, self._pad = tokenizer, int(tokenizer.pad_token_id)
        self._known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]

    def batch(self, episodes: Sequence[Sequence[Turn]]) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask, weights, classes [B, T]; pixel_values [B, I, 3, H, W].

        `weights` belong to the token at their position; `classes` are the true answer at ":" and at the word, else -1.
        """
        import torch

        rows = [self._row(turns) for turns in episodes]
        shape = (len(rows), max(len(row[0]) for row in rows))
        ids, mask = np.full(shape, self._pad), np.zeros(shape, np.int64)
        weights, classes = np.zeros(shape, np.float32), np.full(shape, -1)
        for i, (tokens, weight, answers) in enumerate(rows):
            n = len(tokens)
            ids[i, :n], mask[i, :n], weights[i, :n], classes[i, :n] = tokens, 1, weight, answers
        pixels = normalized(np.stack([np.stack([turn.pixels for turn in turns]) for turns in episodes]))
        arrays = {"input_ids": ids, "attention_mask": mask, "weights": weights, "classes": classes}
        return {**{name: torch.from_numpy(a) for name, a in arrays.items()}, "pixel_values": torch.from_numpy(pixels)}

    def _row(self, turns: Sequence[Turn]) -> tuple[list[int], list[float], list[int]]:
        tokens, weights, classes = list(self.ids(START)), [0.0], [-1]
        image = f"{FAKE}{GLOBAL}{IMAGE * IMAGE_TOKENS}{FAKE}"
        for turn in turns:
            before = self.ids(f"User:{image} ") + self.ids(f"{turn.question} {REQUEST}") + self.ids(f"{END}Assistant:")
            word, number = self.ids(turn.word), CLASSES.index(turn.answer)
            tokens += [*before, *word, *self.ids(END)]
            weights += [0.0] * len(before) + [turn.weight] * len(word) + [0.05]
            classes += [-1] * (len(before) - 1) + [number] * (1 + len(word)) + [-1]
        return tokens, weights, classes


def normalized(pixels: np.ndarray) -> np.ndarray:
    """float32 [..., 3, H, W] from uint8 [..., H, W, 3], as the processor makes it."""
    return np.ascontiguousarray(np.moveaxis(pixels.astype(np.float32) / 127.5 - 1.0, -1, -3))


class Losses(NamedTuple):
    """Next-token loss, the two auxiliary losses together, and the share of knowable words predicted right."""

    words: torch.Tensor
    auxiliary: torch.Tensor
    right: float


class Trainer:
    """The model with its two heads; `step` counts the finished steps of the episodes."""

    def __init__(self, recipe: SmolRecipe, pool: EasyPool, device: str) -> None:
        import torch

        torch.manual_seed(recipe.seed)
        self.recipe, self.pool, self.device = recipe, pool, torch.device(device)
        self.processor = build_processor()
        self.encoder = EpisodeEncoder(self.processor.tokenizer)  # type: ignore[attr-defined]
        self.model: Any = build_smolvlm(self.processor.tokenizer).train()  # type: ignore[attr-defined]
        self.heads = torch.nn.ModuleList([torch.nn.Linear(width, len(CLASSES)) for width in (HIDDEN, VISION_HIDDEN)])
        for module in (self.model, self.heads):
            module.to(self.device)
        self.curriculum, self.step = Curriculum(), 0
        self.optimiser = self._adamw([*self.model.parameters(), *self.heads.parameters()])

    def pretrain_vision(self, report: Report | None) -> None:
        """The vision tower and its head learn to classify what a question asks about."""
        import torch

        recipe = self.recipe
        parameters = [*self.model.model.vision_model.parameters(), *self.heads[1].parameters()]
        optimiser = self._adamw(parameters)
        for step in range(recipe.vision_steps):
            rng = np.random.default_rng([recipe.seed, 0x7157, step])
            answers = [CLASSES[i] for i in rng.integers(len(CLASSES), size=recipe.vision_batch)]
            images = np.stack([self.pool.augmented(self.pool.draw(answer, rng).image, rng) for answer in answers])
            pixels = torch.from_numpy(normalized(images)).to(self.device)
            states = self.model.model.vision_model(pixel_values=pixels).last_hidden_state
            loss, right = self._vision_loss(states, answers)
            self._update(optimiser, parameters, loss, recipe.rate(step, recipe.vision_steps))
            if report is not None:
                report(step + 1, recipe.vision_steps, {"loss": loss.item(), "right": right})

    def train_step(self) -> dict[str, float]:
        """One step on fresh episodes, which depend on seed and step alone."""
        recipe = self.recipe
        if self.step >= recipe.vision_trained:  # the vision tower knows enough, and is a third of the work
            self.model.model.vision_model.requires_grad_(False)
        rng = np.random.default_rng([recipe.seed, 0xEA51, self.step])
        low, high = recipe.shots(self.step)
        count = int(rng.integers(low, high + 1)) + 1
        level = EasyLevel(self.curriculum.values, recipe.fixed(self.step))
        episodes = [draw_turns(rng, count, level, self.pool) for _ in range(recipe.batch_size)]
        losses = self.losses(episodes)
        loss = losses.words + recipe.auxiliary_weight * losses.auxiliary
        parameters = [*self.model.parameters(), *self.heads.parameters()]
        self._update(self.optimiser, parameters, loss, recipe.episode_rate(self.step))
        self.curriculum.step(losses.right)
        self.step += 1
        figures = {"loss": losses.words.item(), "auxiliary": losses.auxiliary.item(), "right": losses.right}
        return {**figures, "values": level.values}

    def losses(self, episodes: Sequence[Sequence[Turn]]) -> Losses:
        import torch.nn.functional as F

        batch = {name: tensor.to(self.device) for name, tensor in self.encoder.batch(episodes).items()}
        states: list[torch.Tensor] = []
        hooks = [
            module.register_forward_hook(lambda _m, _i, out: states.append(_first(out)))
            for module in (self.model.model.vision_model, self.model.model.text_model.layers[1])
        ]
        try:
            names = ("input_ids", "attention_mask", "pixel_values")
            logits = self.model(**{name: batch[name] for name in names}, use_cache=False).logits[:, :-1]
        finally:
            for hook in hooks:
                hook.remove()
        seen, hidden = states
        targets, weights = batch["input_ids"][:, 1:], batch["weights"][:, 1:]
        weighed = weights > 0
        token_loss = F.cross_entropy(logits[weighed], targets[weighed], reduction="none")
        words = (token_loss * weights[weighed]).sum() / weights.sum()
        answered = batch["classes"] >= 0
        auxiliary = F.cross_entropy(self.heads[0](hidden[answered]), batch["classes"][answered])
        if seen.requires_grad:
            auxiliary = auxiliary + self._vision_loss(seen, [turn.answer for turns in episodes for turn in turns])[0]
        knowable = weights == 1.0
        right = ((logits.argmax(-1) == targets) & knowable).sum() / knowable.sum().clamp(min=1)
        return Losses(words, auxiliary, right.item())

    def save(self, file: Path) -> None:
        """Writes all that the next step depends on."""
        import torch

        file.parent.mkdir(parents=True, exist_ok=True)
        state = {"model": self.model.state_dict(), "heads": self.heads.state_dict(), "step": self.step}
        state |= {"optimiser": self.optimiser.state_dict(), "curriculum": vars(self.curriculum)}
        torch.save({**state, "recipe": vars(self.recipe)}, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)

    def resume(self, file: Path) -> bool:
        """Whether `file` holds a checkpoint of this recipe, which is then loaded."""
        import torch

        if not file.is_file():
            return False
        state = torch.load(file, map_location=self.device, weights_only=True)
        if state["recipe"] != vars(self.recipe):
            return False
        for name in ("model", "heads", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.curriculum, self.step = Curriculum(**state["curriculum"]), state["step"]
        return True

    def _vision_loss(self, states: torch.Tensor, answers: Sequence[str]) -> tuple[torch.Tensor, float]:
        """Cross entropy among the classes of each answer's kind, from the mean of the patches' states [N, P, width]."""
        import torch
        import torch.nn.functional as F

        logits = self.heads[1](states.mean(1))
        ranges = torch.tensor([class_range(answer) for answer in answers], device=self.device)
        columns = torch.arange(len(CLASSES), device=self.device)
        outside = (columns < ranges[:, :1]) | (columns >= ranges[:, 1:])
        logits = logits.masked_fill(outside, -1e4)
        targets = torch.tensor([CLASSES.index(answer) for answer in answers], device=self.device)
        return F.cross_entropy(logits, targets), (logits.argmax(-1) == targets).float().mean().item()

    def _adamw(self, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        import torch

        recipe = self.recipe
        return torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        )

    def _update(
        self,
        optimiser: torch.optim.Optimizer,
        parameters: Sequence[torch.nn.Parameter],
        loss: torch.Tensor,
        rate: float,
    ) -> None:
        import torch

        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()


def train_smolvlm(
    folder: Path,
    pool: EasyPool,
    recipe: SmolRecipe,
    device: str = "cpu",
    report: Report | None = None,
    stop: int | None = None,
) -> SmolVLMForConditionalGeneration:
    """Trains and saves the model to `folder`; the same recipe and machine give the same weights.

    One thread: with more, sums differ in their last bits, and a busy machine makes them slow. A checkpoint every
    `checkpoint_every` steps in `folder`.checkpoint lets an interrupted run resume to the same weights. `stop` ends after so
    many steps of the recipe, whose schedules stay as they are.
    """
    import torch

    checkpoint = folder.with_suffix(".checkpoint")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = Trainer(recipe, pool, device)
        if not trainer.resume(checkpoint):
            trainer.pretrain_vision(report)
            trainer.save(checkpoint)
        while trainer.step < (recipe.steps if stop is None else stop):
            figures = trainer.train_step()
            if report is not None:
                report(trainer.step, recipe.steps, figures)
            if trainer.step % recipe.checkpoint_every == 0:
                trainer.save(checkpoint)
    finally:
        torch.set_num_threads(threads)
    save_smolvlm(trainer.model.eval(), trainer.processor, folder)
    model: SmolVLMForConditionalGeneration = trainer.model
    return model


def _first(output: Any) -> torch.Tensor:
    """The states in a module's output."""
    if hasattr(output, "last_hidden_state"):
        output = output.last_hidden_state
    states: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return states
