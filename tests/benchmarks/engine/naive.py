"""The naive way: every prompt by itself, from its first token and its first pixel, as published code scores candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from icltool.components.models.idefics.idefics_prefix_cache import ready_features
from icltool.contracts import Example, Prompt

Ids = tuple[int, ...]


@dataclass(frozen=True)
class NaiveResult:
    """`values` of every sequence that was scored, P(y | S, x), by demonstration ids in prompt order; `beams` best first."""

    values: dict[Ids, float]
    beams: list[Ids]


class NaiveScorer:
    """P = exp(mean log-probability of the target's tokens) with transformers' model, tokenizer and image processor.

    Prompts are taken in the order in which they come, `batch_size` at once, padded to the longest. With `features` (image
    path -> what the adapter's `image_features` gave) only the pixels are spared: the way of a tool that caches images.
    """

    def __init__(self, adapter: Any, batch_size: int, features: Mapping[str, torch.Tensor] | None = None) -> None:
        self._model, self._tokenizer, self._processor = adapter.model, adapter.tokenizer, adapter.image_processor
        self._device, self._dtype = adapter.device, adapter.dtype
        self._batch_size = batch_size
        self._features = features

    @torch.inference_mode()
    def values(self, prompts: Sequence[Prompt]) -> list[float]:
        values: list[float] = []
        for start in range(0, len(prompts), self._batch_size):
            values += self._batch(prompts[start : start + self._batch_size])
        return values

    def _batch(self, prompts: Sequence[Prompt]) -> list[float]:
        encoded = self._tokenizer(
            [p.text + p.target for p in prompts],
            add_special_tokens=False, padding=True, padding_side="right", return_offsets_mapping=True, return_tensors="pt",
        )  # fmt: skip
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        images = max(len(p.images) for p in prompts)
        last_seen = (ids == self._tokenizer.convert_tokens_to_ids("<image>")).cumsum(1) - 1
        sees = (last_seen[:, :, None] == torch.arange(images)) & mask[:, :, None].bool()
        with ready_features(self._model.model.config, self._features is not None):
            logits = self._model(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                image_attention_mask=sees.long().to(self._device),
                use_cache=False,
                **self._images(prompts, images),
            ).logits
        log_probs = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        picked = log_probs.gather(2, ids[:, 1:, None].to(self._device))[:, :, 0]
        targets = torch.zeros(ids.shape[0], ids.shape[1] - 1)
        for row, prompt in enumerate(prompts):
            ends = encoded["offset_mapping"][row, :, 1]
            target = (ends > len(prompt.text)) & mask[row].bool()
            targets[row] = target[1:].float()
        targets = targets.to(self._device)
        return ((picked * targets).sum(1) / targets.sum(1)).exp().tolist()

    def _images(self, prompts: Sequence[Prompt], images: int) -> dict[str, torch.Tensor]:
        """Pixels [B, images, 3, H, W] of files read anew, or ready features; zeros where a prompt has fewer images."""
        if self._features is not None:
            rows = [torch.stack([self._features[path] for path in p.images]) for p in prompts]
            return {"image_encoder_embeddings": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)}
        pixels = []
        for prompt in prompts:
            opened = [Image.open(path).convert("RGB") for path in prompt.images]
            prepared = self._processor(opened, return_tensors="pt")
            pixels.append(prepared if isinstance(prepared, torch.Tensor) else prepared["pixel_values"])
        stacked = torch.nn.utils.rnn.pad_sequence(pixels, batch_first=True)
        return {"pixel_values": stacked.to(self._device, self._dtype)}


def naive_search(
    scorer: NaiveScorer, adapter: Any, query: Example, pool: Sequence[Example], shots: int, width: int, order: str
) -> NaiveResult:
    """Beam search by the gain of the last step, as icltool's default is; equal gains go by beam and candidate position."""
    known = {e.id: e for e in pool}

    def scored(sequences: Sequence[Ids]) -> list[float]:
        return scorer.values([adapter.prompt("caption", [known[i] for i in ids], query) for ids in sequences])

    values: dict[Ids, float] = {(): scored([()])[0]}
    beams: list[Ids] = [()]
    for _ in range(shots):
        extended = [(beam, (*beam, e.id) if order == "left" else (e.id, *beam))
                    for beam in beams for e in pool if e.id not in beam]  # fmt: skip
        gains = []
        for (beam, ids), value in zip(extended, scored([ids for _, ids in extended]), strict=True):
            values[ids] = value
            gains.append(value - values[beam])
        best = sorted(range(len(gains)), key=lambda k: -gains[k])[:width]
        beams = [extended[k][1] for k in best]
    return NaiveResult(values, beams)
