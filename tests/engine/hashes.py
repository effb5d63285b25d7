"""A language of hashes whose keys and values are exact: what a token is depends on all tokens before it."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch

from icltool.contracts import GenerationOptions, KeysValues, PrefixExtension, Prompt, PromptTokens, Span, TargetScore

PRIME, LAYERS = 10007, 2


class HashedModel:
    """Every character is a token, `#` an image. A token's key is a number made of its unit and of all keys before it, at
    their places; its value follows from the key. `extend_prefix` knows of the past only what it is given."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        tokens = []
        for prompt in prompts:
            text = prompt.text + (prompt.target if with_target else "")
            images = iter(prompt.images)
            units: list[Hashable] = [("#", next(images)) if c == "#" else c for c in text]
            start = max(0, prompt.text.rfind("#"))
            ids = tuple(ord(c) for c in text)
            tokens.append(PromptTokens(ids, tuple(units), len(prompt.text), start, prompt.images))
        return tokens

    def extend_prefix(
        self, spans: Sequence[Span], past: KeysValues | None, features: Mapping[str, Any] | None, keep: bool
    ) -> PrefixExtension:
        self.batches.append([(s.start, s.end) for s in spans])
        rows = [self._continued(span, self._before(past, row, span.start)) for row, span in enumerate(spans)]
        longest = max(len(row) for row in rows)
        keys = torch.tensor([row + [-1] * (longest - len(row)) for row in rows], dtype=torch.float)[:, None, :, None]
        states = [(keys + layer, 2 * keys + layer) for layer in range(LAYERS)] if keep else None
        sums = [
            -sum(h % 97 for p, h in enumerate(row, span.start) if span.tokens.target_start - 1 <= p < span.end)
            for row, span in zip(rows, spans, strict=True)
        ]
        return PrefixExtension(torch.tensor(sums, dtype=torch.float64), states)

    def generate_from_prefix(
        self, prompts: Sequence[PromptTokens], past: KeysValues, options: GenerationOptions, features: Any
    ) -> list[str]:
        texts = []
        for row, prompt in enumerate(prompts):
            last = Span(prompt, len(prompt.ids) - 1, len(prompt.ids))
            texts.append(str(self._continued(last, self._before(past, row, last.start))[0]))
        return texts

    def score(self, prompts: Sequence[Prompt], batch_size: int = 1, features: Any = None) -> list[TargetScore]:
        """Every prompt computed whole."""
        scores = []
        for tokens in self.prompt_tokens(prompts, True):
            keys = self._continued(Span(tokens, 0, len(tokens.ids) - 1), [])
            log_prob = -sum(h % 97 for h in keys[tokens.target_start - 1 :])
            scores.append(TargetScore(float(log_prob), len(tokens.ids) - tokens.target_start))
        return scores

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        tokens = self.prompt_tokens(prompts, False)
        return [str(self._continued(Span(t, 0, len(t.ids)), [])[-1]) for t in tokens]

    @staticmethod
    def _continued(span: Span, before: list[int]) -> list[int]:
        assert len(before) == span.start
        keys = list(before)
        for unit in span.tokens.units[span.start : span.end]:
            seen = sum(place * key for place, key in enumerate(keys, 1))
            keys.append((zlib.crc32(repr(unit).encode()) + seen) % PRIME)
        return keys[span.start :]

    @staticmethod
    def _before(past: KeysValues | None, row: int, count: int) -> list[int]:
        """The last `count` keys of the row; all layers must tell the same."""
        if not count:
            return []
        assert past is not None
        tokens_of_layers = set()
        for layer, (keys, values) in enumerate(past):
            assert torch.equal(2 * keys[row, 0, -count:, 0] - layer, values[row, 0, -count:, 0])
            tokens_of_layers.add(tuple((keys[row, 0, -count:, 0] - layer).int().tolist()))
        (tokens,) = tokens_of_layers
        return list(tokens)


class ForgetfulMemory(HashedModel):
    """Memory runs out in the `failing` calls, unless a single span is asked for."""

    def __init__(self, failing: frozenset[int]) -> None:
        super().__init__()
        self._failing, self._calls = failing, 0

    def extend_prefix(self, spans: Sequence[Span], *rest: Any) -> PrefixExtension:
        self._calls += 1
        if self._calls in self._failing and len(spans) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().extend_prefix(spans, *rest)

    def generate_from_prefix(self, prompts: Sequence[PromptTokens], *rest: Any) -> list[str]:
        self._calls += 1
        if self._calls in self._failing and len(prompts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().generate_from_prefix(prompts, *rest)


class JoinedModel(HashedModel):
    """An image is a block of three tokens, which no span may cut."""

    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        return [_with_blocks(tokens) for tokens in super().prompt_tokens(prompts, with_target)]

    def extend_prefix(self, spans: Sequence[Span], *rest: Any) -> PrefixExtension:
        for span in spans:
            for place in (span.start, span.end):
                assert not any(start < place < end for start, end in span.tokens.blocks)
        return super().extend_prefix(spans, *rest)


def _with_blocks(tokens: PromptTokens) -> PromptTokens:
    units: list[Hashable] = []
    blocks, places = [], []
    for unit in tokens.units:
        places.append(len(units))
        if isinstance(unit, tuple):
            blocks.append((len(units), len(units) + 3))
        units += [(*unit, k) for k in range(3)] if isinstance(unit, tuple) else [unit]
    places.append(len(units))
    start, shared = places[tokens.target_start], places[tokens.shared_end]
    return PromptTokens((0,) * len(units), tuple(units), start, shared, tokens.images, tuple(blocks))
