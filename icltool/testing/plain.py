"""The plain twin of an adapter: one prompt, one full forward pass, every logit; no batch, no padding, no cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from icltool.contracts import Float64Array, GenerationOptions, Prompt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

#: (prompt, text, further token ids) -> (ids of the text, log-probabilities float64 [T, V] at each token of text + further)
PlainForward = Callable[[Prompt, str, Sequence[int]], tuple[list[int], Float64Array]]

#: Inputs that a twin caches: each step of a search reads those of its prompt again.
_CACHED = 4


@dataclass(frozen=True)
class PlainTwin:
    """A reference for an adapter's scores and answers, computed step by step.

    `forward` is one full forward pass over a text of the prompt's images, and tokens after it. `decode` turns token ids
    into text without special tokens. `ends` are the ids that end an answer, `suppressed` those that no answer holds.
    """

    forward: PlainForward
    decode: Callable[[list[int]], str]
    ends: frozenset[int]
    suppressed: frozenset[int] = frozenset()

    def log_prob(self, prompt: Prompt) -> tuple[float, int]:
        """(summed log-probability of the target in nats, its number of tokens), by teacher forcing. The tokens of
        text + target must begin with those of the text."""
        before, _ = self.forward(prompt, prompt.text, [])
        ids, log_probs = self.forward(prompt, prompt.text + prompt.target, [])
        if ids[: len(before)] != before:
            raise ValueError("a token merges across the border of the target: choose other words")
        return sum(float(log_probs[k - 1, ids[k]]) for k in range(len(before), len(ids))), len(ids) - len(before)

    def answer(self, prompt: Prompt, options: GenerationOptions) -> str:
        """The continuation by beam search; one beam is greedy decoding.

        Each step extends every beam by every token. An end token is none before `min_new_tokens`; with several beams the
        log-probabilities of tokens that an answer has already are multiplied by `repetition_penalty`. Of the best (1 +
        number of end tokens) x beams extensions, those that end are kept as answers when they are among the first
        `num_beams`; the best others continue. The search stops when `num_beams` answers are at least as good as the best
        continuing beam.
        """
        width, done, running = options.num_beams, [], [(0.0, [])]  # type: ignore[var-annotated]
        for step in range(1, options.max_new_tokens + 1):
            following = [(score, ids, self._next(prompt, ids, options)) for score, ids in running]
            reached = [(s + row[t], [*ids, int(t)]) for s, ids, row in following for t in np.argsort(-row)[: 4 * width]]
            best = sorted(reached, key=lambda pair: -pair[0])[: max(2, 1 + len(self.ends)) * width]
            over = [ids[-1] in self.ends or step == options.max_new_tokens for _, ids in best]
            length = step**options.length_penalty if width > 1 else 1.0
            done += [(score / length, ids) for (score, ids), end in zip(best[:width], over, strict=False) if end]
            done = sorted(done, key=lambda pair: -pair[0])[:width]
            running = [pair for pair, end in zip(best, over, strict=True) if not end][:width]
            if len(done) == width and (not running or running[0][0] / length <= done[-1][0]):
                break
            if width == 1 and over[0]:
                break
        return self.decode(done[0][1])

    def _next(self, prompt: Prompt, ids: list[int], options: GenerationOptions) -> Float64Array:
        """Log-probabilities float64 [V] of the next token, minus infinity for those that the answer cannot hold here."""
        row: Float64Array = self.forward(prompt, prompt.text, ids)[1][-1].copy()
        if options.num_beams > 1:
            row[sorted(set(ids))] *= options.repetition_penalty
        if len(ids) < options.min_new_tokens:
            row[sorted(self.ends)] = -np.inf
        row[sorted(self.suppressed)] = -np.inf
        return row


def torch_twin(
    model: Callable[..., Any],
    tokenizer: PreTrainedTokenizerBase,
    inputs: Callable[[Prompt, str], dict[str, Tensor]],
    ends: Sequence[int],
    suppressed: Sequence[int] = (),
) -> PlainTwin:
    """The twin of an adapter of a transformers model. `inputs(prompt, text)` are the model's inputs for one text (tensors
    with one row), made by the published tokenizer or processor without the adapter."""
    import torch

    prepared = lru_cache(_CACHED)(inputs)

    def forward(prompt: Prompt, text: str, more: Sequence[int]) -> tuple[list[int], Float64Array]:
        whole = prepared(prompt, text)
        ids = whole["input_ids"][0].tolist()
        with torch.inference_mode():
            logits = model(**_extended(whole, list(more)), use_cache=False).logits[0]
        return ids, torch.log_softmax(logits.double(), -1).numpy()

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    return PlainTwin(forward, decode, frozenset(ends), frozenset(suppressed))


def torch_twin_apart(
    model: Callable[..., Any],
    tokenizer: PreTrainedTokenizerBase,
    inputs: Callable[[Prompt], dict[str, Tensor]],
    ends: Sequence[int],
    start: int,
    suppressed: Sequence[int] = (),
) -> PlainTwin:
    """The twin of an adapter of an encoder-decoder (`target_apart = True`). `inputs(prompt)` is what the encoder reads, one
    row, its `input_ids` among them; the decoder begins with the id `start`."""
    import torch

    prepared = lru_cache(_CACHED)(inputs)

    def forward(prompt: Prompt, text: str, more: Sequence[int]) -> tuple[list[int], Float64Array]:
        read = prepared(prompt)
        before = read["input_ids"][0].tolist()
        target = text[len(prompt.text) :]
        target_ids = tokenizer(target, add_special_tokens=False)["input_ids"] if target else []
        decoder = torch.tensor([[start, *target_ids, *more]])
        with torch.inference_mode():
            logits = model(**read, decoder_input_ids=decoder, use_cache=False).logits[0]
        log_probs = torch.log_softmax(logits.double(), -1).numpy()
        return [*before, *target_ids], np.concatenate([np.zeros((len(before) - 1, log_probs.shape[1])), log_probs])

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    return PlainTwin(forward, decode, frozenset(ends), frozenset(suppressed))


def _extended(inputs: dict[str, Tensor], more: list[int]) -> dict[str, Tensor]:
    """`inputs` with more text tokens at the end of their row: attended to, of type text, and attending to the last image if
    there is an image mask."""
    import torch

    if not more:
        return inputs
    grown = dict(inputs)
    new = torch.tensor([more])
    grown["input_ids"] = torch.cat([inputs["input_ids"], new], 1)
    for key in ("attention_mask", "image_attention_mask"):
        if key in inputs:
            last = inputs[key][:, -1:]
            grown[key] = torch.cat([inputs[key], *[last] * len(more)], 1)
    for key in ("token_type_ids", "mm_token_type_ids"):
        if key in inputs:
            grown[key] = torch.cat([inputs[key], torch.zeros_like(new)], 1)
    return grown
