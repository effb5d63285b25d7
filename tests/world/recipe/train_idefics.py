"""Trains `tiny-idefics` from scratch: in-context word learning by a curriculum of episodes.

The recipe (curriculum on the number of distinct values, a share of episodes with one fixed lexicon, an auxiliary head that
reads the attributes off the second layer) is what makes a model of this size learn in context within minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from icltool.world.scenes import COLOURS, SHAPES
from tests.world.recipe.episodes import Difficulty, Episode, RenderPool, draw_episode

if TYPE_CHECKING:
    import torch
    from transformers import IdeficsForVisionText2Text, PreTrainedTokenizerFast

Report = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result besides the number of threads."""

    steps: int = 3600
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    steps_per_value: int = 225
    fixed_share: float = 0.3
    auxiliary_weight: float = 0.5
    renderings_per_scene: int = 60
    snapshot_every: int = 600
    seed: int = 0

    def difficulty(self, step: int) -> Difficulty:
        """One value of each attribute at first, one more every `steps_per_value`; the fixed lexicon fades out at 60 %."""
        values = min(len(COLOURS), 1 + step // self.steps_per_value)
        fade = max(0.0, min(1.0, (0.6 * self.steps - step) / (0.2 * self.steps)))
        return Difficulty(values, self.fixed_share * fade)

    def rate(self, step: int) -> float:
        """Linear warm-up, then cosine to 2 % of the peak."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


class Encoder:
    """Turns episodes into tensors; a piece's tokens are looked up once and kept."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.image_id = tokenizer.convert_tokens_to_ids("<image>")
        self.pad_id = int(tokenizer.pad_token_id)
        self.known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self.known:
            self.known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self.known[text]

    def batch(self, episodes: list[Episode], device: torch.device) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask [B, T]; image_attention_mask [B, T, I]; pixel_values; weights, colour, shape [B, T].

        `weights` belong to the token at their position; colour and shape are -1 where the auxiliary head is not asked.
        """
        import torch

        rows = [self._row(e) for e in episodes]
        length = max(len(r[0]) for r in rows)
        images = len(episodes[0].images)
        ids = np.full((len(rows), length), self.pad_id)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        weights = np.zeros((len(rows), length), dtype=np.float32)
        head = np.full((len(rows), length, 2), -1)
        for i, (tokens, weight, attributes) in enumerate(rows):
            n = len(tokens)
            ids[i, :n], mask[i, :n], weights[i, :n], head[i, :n] = tokens, 1, weight, attributes
        current = np.cumsum(ids == self.image_id, axis=1) - 1
        attends = (current[:, :, None] == np.arange(images)) & (mask[:, :, None] == 1)
        arrays = {
            "input_ids": ids,
            "attention_mask": mask,
            "image_attention_mask": attends.astype(np.int64),
            "pixel_values": np.stack([np.stack(e.images) for e in episodes]),
            "weights": weights,
            "colour": head[..., 0],
            "shape": head[..., 1],
        }
        return {name: torch.from_numpy(a).to(device) for name, a in arrays.items()}

    def _row(self, episode: Episode) -> tuple[list[int], list[float], list[tuple[int, int]]]:
        tokens: list[int] = []
        weights: list[float] = []
        head: list[tuple[int, int]] = []
        for text, weight, attributes in episode.pieces:
            ids = self.ids(text)
            tokens += ids
            weights += [weight] * len(ids)
            head += [attributes or (-1, -1)] * len(ids)
        return tokens, weights, head


def losses(
    model: IdeficsForVisionText2Text, heads: torch.nn.ModuleList, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(weighted next-token loss, auxiliary loss, share of knowable label words predicted right)."""
    import torch
    import torch.nn.functional as F

    references: list[torch.Tensor] = []
    hook = model.model.layers[1].register_forward_hook(
        lambda _m, _i, out: references.append(out[0] if isinstance(out, tuple) else out)
    )
    try:
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "image_attention_mask", "pixel_values")}
        logits = model(**inputs, use_cache=False).logits[:, :-1]
    finally:
        hook.remove()
    targets, weights = batch["input_ids"][:, 1:], batch["weights"][:, 1:]
    token_loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    main = (token_loss * weights.flatten()).sum() / weights.sum()
    hidden = references[0]
    auxiliary = sum(
        F.cross_entropy(head(hidden).flatten(0, 1), batch[name].flatten(), ignore_index=-1)
        for head, name in zip(heads, ("colour", "shape"), strict=True)
    )
    knowable = weights == 1.0
    right = ((logits.argmax(-1) == targets) & knowable).sum() / knowable.sum().clamp(min=1)
    return main, torch.as_tensor(auxiliary), right.detach()


def train(
    folder: Path, recipe: Recipe, device: str = "cpu", report: Report | None = None, stop: int | None = None
) -> IdeficsForVisionText2Text:
    """Trains and saves the model to `folder`; the same recipe and machine give the same weights.

    `stop` ends after so many steps of the recipe, whose schedules stay as they are.
    """
    import torch
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil as Processor

    from tests.world.recipe.architecture import build_idefics, save_idefics
    from tests.world.recipe.tokenizer import build_tokenizer

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng([recipe.seed, 0x7EA1])
    where = torch.device(device)
    tokenizer = build_tokenizer()
    model: Any = build_idefics(tokenizer).train()
    model.to(where)
    heads = torch.nn.ModuleList([torch.nn.Linear(128, len(COLOURS)), torch.nn.Linear(128, len(SHAPES))]).to(where)
    pool = RenderPool(recipe.renderings_per_scene, recipe.seed, list(Processor.image_mean), list(Processor.image_std))
    encoder = Encoder(tokenizer)
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    for step in range(recipe.steps if stop is None else stop):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        task = "caption" if rng.random() < 0.6 else "vqa"
        low, high = (3, 9) if rng.random() < 0.9 else (9, 17)
        demonstrations = int(rng.integers(low, high))
        level = recipe.difficulty(step)
        size = recipe.batch_size if demonstrations < 9 else recipe.batch_size // 2
        episodes = [draw_episode(rng, demonstrations, task, level, pool) for _ in range(size)]
        main, auxiliary, right = losses(model, heads, encoder.batch(episodes, where))
        optimiser.zero_grad(set_to_none=True)
        (main + recipe.auxiliary_weight * auxiliary).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if report is not None and (step % 25 == 0 or step == recipe.steps - 1):
            figures = {
                "loss": main.item(),
                "auxiliary": auxiliary.item(),
                "right": right.item(),
                "values": level.values,
            }
            report(step + 1, recipe.steps, figures)
        if (step + 1) % recipe.snapshot_every == 0:
            save_idefics(model, tokenizer, folder)
    save_idefics(model.eval(), tokenizer, folder)
    return cast("IdeficsForVisionText2Text", model)
