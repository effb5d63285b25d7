"""Scores and answers of many prompts, computing what they have in common once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from icltool.contracts import (
    Features,
    GeneratesFromPrefix,
    GenerationOptions,
    KeysValues,
    Model,
    PrefixExtension,
    Prompt,
    PromptTokens,
    Span,
    SupportsPrefixCache,
    TargetScore,
)
from icltool.engine.batching import Batches, is_out_of_memory, release_memory
from icltool.engine.kv_pool import KeyValuePool
from icltool.engine.prefix_tree import PrefixTree
from icltool.engine.sharing import Segment, shared_segments

#: A tensor that may still be computed, and the place of a number in it.
Pending = tuple[torch.Tensor, int]


@dataclass
class TokenCounts:
    """`scored`: tokens of all prompts with their targets, as if each were computed whole. `computed`: tokens that the
    model was run on. `padded`: those with the padding of their batches."""

    scored: int = 0
    computed: int = 0
    padded: int = 0


class PrefixEngine:
    """Computes prompts as a tree: a beginning that is stored, or that several prompts share, is computed once.

    Keys and values stay in a pool of `byte_limit` bytes, across calls: the oldest make room. Where the pool is too small
    prompts are computed with less sharing, and the same result. `counts` says what was computed.
    """

    def __init__(self, model: SupportsPrefixCache, batches: Batches, byte_limit: int) -> None:
        self._model = model
        self._batches = batches
        self._tree = PrefixTree()
        self._pool = KeyValuePool(byte_limit)
        self.counts = TokenCounts()

    def scores(self, prompts: Sequence[Prompt], features: Features, keep: bool) -> list[TargetScore]:
        """The TargetScore of each prompt. With `keep` the part before each query stays stored for later prompts."""
        if not prompts:
            return []
        tokens = self._model.prompt_tokens(prompts, True)
        self.counts.scored += sum(len(t.ids) for t in tokens)
        self._tree.begin()
        self._compute_shared(tokens, [t.target_start - 1 for t in tokens], features)
        spans = [self._rest(t, t.target_start - 1, len(t.ids) - 1) for t in tokens]

        def compute(part: list[Span], size: int) -> list[Pending]:
            return self._extended(part, features, [s.tokens.shared_end if keep else 0 for s in part])

        totals = _read(self._run(spans, compute))  # the one time that the device is waited for
        return [TargetScore(total, len(t.ids) - t.target_start) for total, t in zip(totals, tokens, strict=True)]

    def answers(self, prompts: Sequence[Prompt], options: GenerationOptions, features: Features) -> list[str]:
        """The raw continuation of each prompt; the model must be GeneratesFromPrefix."""
        if not prompts:
            return []
        tokens = self._model.prompt_tokens(prompts, False)
        if any(len(t.ids) == 1 for t in tokens):  # nothing stands before its last token
            model = cast(Model, self._model)
            return self._batches.run(prompts, lambda part, size: model.generate(part, options, size, features))
        self.counts.scored += sum(len(t.ids) for t in tokens)
        self._tree.begin()
        if options.temperature > 0:
            tokens = [replace(t, draw=p.draw) for t, p in zip(tokens, prompts, strict=True)]
        self._compute_shared(tokens, [len(t.ids) - 1 for t in tokens], features)
        spans = [self._rest(t, len(t.ids) - 1, len(t.ids) - 1) for t in tokens]

        def compute(part: list[Span], size: int) -> list[str]:
            model = cast(GeneratesFromPrefix, self._model)
            self.counts.computed += len(part)  # the last token of each prompt
            self.counts.padded += len(part)
            return model.generate_from_prefix(
                [s.tokens for s in part], self._whole_past(part, features), options, features
            )

        return self._run(spans, compute)

    def forget(self) -> None:
        """Empties the cache."""
        self._tree.begin()
        self._pool.give(self._tree.oldest(len(self._tree)))

    def _compute_shared(self, tokens: Sequence[PromptTokens], ends: Sequence[int], features: Features) -> None:
        """Stores what several prompts share, level by level, as far as the pool holds it."""
        stored = [self._stored(t, end) for t, end in zip(tokens, ends, strict=True)]
        for level in shared_segments(tokens, stored, ends):
            fitting = self._fitting(level, tokens)
            spans = [self._rest(tokens[s.rows[0]], s.end, s.end) for s in fitting]

            def compute(part: list[Span], size: int) -> list[Pending]:
                return self._extended(part, features, [s.end for s in part])

            self._run([s for s in spans if s.start < s.end], compute)

    def _fitting(self, level: Sequence[Segment], tokens: Sequence[PromptTokens]) -> list[Segment]:
        """Those segments that the pool has room for, the ones that save most first."""
        if not self._pool.ready:  # its size shows with the first keys and values
            return list(level)
        fitting, needed = [], 0
        for segment in sorted(level, key=lambda s: -s.saved):
            more = self._tree.missing(tokens[segment.rows[0]].units, segment.end)
            if self._make_room(needed + more):
                fitting.append(segment)
                needed += more
        return fitting

    def _make_room(self, count: int) -> bool:
        """True where `count` slots are free, if need be after dropping what was not used for longest."""
        short = count - self._pool.free
        if short > 0:
            self._pool.give(self._tree.oldest(short))
        return count <= self._pool.free

    def _rest(self, tokens: PromptTokens, limit: int, end: int) -> Span:
        """What is to be computed up to `end` after the stored tokens, of which `limit` may be used at most."""
        return Span(tokens, self._stored(tokens, limit), end)

    def _stored(self, tokens: PromptTokens, limit: int) -> int:
        """The number of stored tokens that may be used, at most `limit`."""
        return tokens.cut(len(self._tree.find(tokens.units, limit)))

    def _past(self, spans: Sequence[Span]) -> KeysValues | None:
        if not any(s.start for s in spans):
            return None
        return self._pool.gather([self._tree.find(s.tokens.units, s.start) for s in spans])

    def _extended(self, spans: list[Span], features: Features, keep: Sequence[int]) -> list[Pending]:
        """Pending log-probabilities of the spans' targets. Stores tokens up to `keep` of each prompt."""
        counts = [max(0, min(k, s.end) - s.start) for s, k in zip(spans, keep, strict=True)]
        extension = self._forward(spans, features, any(counts))
        if extension.keys_values is not None:
            self._store(spans, counts, extension.keys_values)
        return [(extension.log_probs, row) for row in range(len(spans))]

    def _forward(self, spans: Sequence[Span], features: Features, keep: bool) -> PrefixExtension:
        extension = self._model.extend_prefix(spans, self._past(spans), features, keep)
        lengths = [s.end - s.start for s in spans]
        self.counts.computed += sum(lengths)
        self.counts.padded += len(lengths) * max(lengths)
        return extension

    def _store(self, spans: Sequence[Span], counts: Sequence[int], keys_values: KeysValues) -> None:
        """Stores the first `counts` tokens of each span, as far as the pool has room."""
        if not self._prepared(keys_values):
            return
        self._make_room(sum(counts))
        slots: list[int] = []
        rows: list[int] = []
        columns: list[int] = []
        for row, (span, count) in enumerate(zip(spans, counts, strict=True)):
            known = len(self._tree.find(span.tokens.units, span.start + count))
            fresh = range(known - span.start, count)  # another prompt may have stored the first of them just now
            if known < span.start or not fresh or len(fresh) > self._pool.free:
                continue
            fresh_slots = self._pool.take(len(fresh))
            self._tree.add(span.tokens.units[: span.start + count], fresh_slots)
            slots += fresh_slots
            rows += [row] * len(fresh)
            columns += fresh
        written = False
        try:
            self._pool.write(slots, keys_values, rows, columns)
            written = True
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        finally:
            if not written:  # the tree must not list slots that were not written
                self._tree.drop(slots)
                self._pool.give(slots)
        if not written:
            release_memory()  # the scores are there: nothing but the keys and values is lost

    def _prepared(self, keys_values: KeysValues) -> bool:
        """Whether there is a pool, allocated now if necessary and if memory suffices."""
        try:
            self._pool.prepare(keys_values)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if not self._pool.ready:
            release_memory()
        return self._pool.ready

    def _whole_past(self, spans: Sequence[Span], features: Features) -> KeysValues:
        """Keys and values of all tokens before each span's end, padded on the left."""
        past = self._past(spans)
        if all(s.start == s.end for s in spans):
            assert past is not None
            return past
        own = self._forward(spans, features, True).keys_values
        assert own is not None
        before, longest = max(s.start for s in spans), max(s.end for s in spans)
        places = torch.zeros(len(spans), longest, dtype=torch.long)
        for row, span in enumerate(spans):
            places[row, longest - span.end : longest - span.end + span.start] = torch.arange(
                before - span.start, before
            )
            places[row, longest - (span.end - span.start) :] = torch.arange(before, before + span.end - span.start)
        joined = []
        for layer, (keys, values) in enumerate(own):
            early, late = (None, None) if past is None else past[layer]
            joined.append((_columns(early, keys, places), _columns(late, values, places)))
        return joined

    def _run(self, spans: Sequence[Span], compute: Any) -> list[Any]:
        return self._batches.run(spans, compute)


def _read(pending: Sequence[Pending]) -> list[float]:
    """The numbers, fetched from the device at once."""
    tensors = list({id(tensor): tensor for tensor, _ in pending}.values())
    starts, low = {}, 0
    for tensor in tensors:
        starts[id(tensor)] = low
        low += len(tensor)
    numbers = torch.cat(tensors).tolist()
    return [numbers[starts[id(tensor)] + place] for tensor, place in pending]


def _columns(past: torch.Tensor | None, own: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[B, heads, T, head width]: in each row the columns `places` [B, T] of past and own keys (or values) together."""
    joined = own if past is None else torch.cat([past, own], dim=2)
    pinned = places.pin_memory() if own.device.type == "cuda" else places
    index = pinned.to(own.device, non_blocking=True)[:, None, :, None].expand(-1, joined.shape[1], -1, joined.shape[3])
    return joined.gather(2, index)
