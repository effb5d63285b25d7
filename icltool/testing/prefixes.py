"""The part of `check_model` for models with a prefix cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

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
)
from icltool.testing.alone import PromptsAlone
from icltool.testing.expectations import expect, expect_equal

if TYPE_CHECKING:
    from torch import Tensor


class CachingModel(Model, SupportsPrefixCache, Protocol):
    """A Model that computes scores from stored keys and values."""


class GeneratingModel(CachingModel, GeneratesFromPrefix, Protocol):
    """A Model that also generates from them."""


_OPTIONS = (GenerationOptions(max_new_tokens=6, num_beams=1), GenerationOptions(max_new_tokens=6, num_beams=3))


def check_prefixes(
    model: CachingModel,
    prompts: Sequence[Prompt],
    features: Features,
    tolerance: float,
    alone: PromptsAlone | None = None,
) -> None:
    """Checks a SupportsPrefixCache model (and GeneratesFromPrefix if it is one) on prompts of several lengths.

    Scores must equal those of `score` if prompts are computed in one pass, in two passes (cut at the target, before the query,
    within images and at random places, but not inside a block) and in three passes, with a different cut for every prompt of
    a batch. Answers from keys and values must equal those of `generate`. `tolerance` is in nats. `alone` caches scores and
    answers of the prompts without features; answers from features are compared with them, too.
    """
    alone = alone or PromptsAlone(model, features)
    plain = alone.scores(prompts) if features is None else PromptsAlone(model, features).scores(prompts)
    expected = [score.log_prob for score in plain]
    tokens = model.prompt_tokens(prompts, True)
    _check_tokens(tokens, prompts, [score.tokens for score in plain])
    _check_units(model, prompts)
    whole = [Span(t, 0, len(t.ids) - 1) for t in tokens]
    for keep in (False, True):
        actual = model.extend_prefix(whole, None, features, keep)
        expect((actual.keys_values is not None) == keep, f"`extend_prefix` with keep={keep}: keys and values are wrong")
        _same(actual.log_probs, expected, "in one pass", tolerance)
    rng = np.random.default_rng(3)
    cuts = {
        "cut before the target": [t.target_start - 1 for t in tokens],
        "cut before the query": [max(1, min(t.shared_end, t.target_start - 1)) for t in tokens],
        "cut anywhere": [int(rng.integers(1, t.target_start)) for t in tokens],
        "cut after the first token": [1 for _ in tokens],
        "cut within an image": [_within_images(t) for t in tokens],
    }
    for name, positions in cuts.items():
        together = name != "cut anywhere"
        places = [t.cut(position) for t, position in zip(tokens, positions, strict=True)]
        past = _past(model, tokens, places, features, together)
        rest = [Span(t, cut, len(t.ids) - 1) for t, cut in zip(tokens, places, strict=True)]
        _same(model.extend_prefix(rest, past, features, False).log_probs, expected, name, tolerance)
        rest[0] = replace(rest[0], end=places[0])  # a prompt with nothing left to compute
        _same(
            model.extend_prefix(rest, past, features, True).log_probs,
            [0.0, *expected[1:]],
            f"{name}, one ended",
            tolerance,
        )
    some = [t.cut(int(rng.integers(0, t.target_start))) for t in tokens]
    some[0] = 0  # one prompt without a prefix
    _same(_in_three(model, tokens, some, features), expected, "cut twice", tolerance)
    if isinstance(model, GeneratesFromPrefix):
        _check_answers(model, prompts, features, alone)


def _check_tokens(tokens: Sequence[PromptTokens], prompts: Sequence[Prompt], counts: Sequence[int]) -> None:
    for actual, prompt, count in zip(tokens, prompts, counts, strict=True):
        expect(len(actual.ids) == len(actual.units), "a prompt has as many units as tokens")
        expect(actual.images == prompt.images, "the images of PromptTokens are those of the prompt")
        inside = len(actual.ids) - actual.target_start
        expect(inside == count, f"a target of {count} tokens has {inside} after `target_start`")
        expect(0 <= actual.shared_end <= actual.target_start, "`shared_end` must be in the prompt's text")
        for place in (actual.shared_end, actual.target_start - 1):
            expect(actual.cut(place) == place, "the query and the target must not begin inside a block")


def _check_units(model: CachingModel, prompts: Sequence[Prompt]) -> None:
    """Checks that the same words with the images in another order have other units."""
    several = [p for p in prompts if len(set(p.images)) > 1]
    turned = [replace(p, images=p.images[1:] + p.images[:1]) for p in several]
    for one, other in zip(model.prompt_tokens(several, True), model.prompt_tokens(turned, True), strict=True):
        expect(one.units != other.units, "prompts with other images have other units")


def _within_images(tokens: PromptTokens) -> int:
    """A place between two tokens of an image, or before one; any other place if there is no image."""
    in_image = [unit != token for unit, token in zip(tokens.units, tokens.ids, strict=True)]
    inside = [k for k in range(1, tokens.target_start) if in_image[k] and in_image[k - 1]]
    before = [k for k in range(1, tokens.target_start) if in_image[k]]
    return next(iter(inside[-1:] or before[-1:]), max(1, (tokens.target_start - 1) // 2))


def _in_three(model: CachingModel, tokens: Sequence[PromptTokens], first: Sequence[int], features: Features) -> Tensor:
    """Log-probabilities from [0, a), [a, b), [b, end), with b half-way between a and the target."""
    second = [max(a, t.cut((a + t.target_start - 1) // 2)) for a, t in zip(first, tokens, strict=True)]
    early = _past(model, tokens, [max(a, 0) for a in first], features)
    middle = [Span(t, a, b) for t, a, b in zip(tokens, first, second, strict=True)]
    rows = [k for k, span in enumerate(middle) if span.start < span.end]
    early_rows = [(_rows(keys, rows), _rows(values, rows)) for keys, values in early]
    own = _keys_values(model.extend_prefix([middle[k] for k in rows], early_rows, features, True))
    late = []
    for layer, (keys, values) in enumerate(early):
        joined = (
            [_tail(keys, k, first[k]) for k in range(len(tokens))],
            [_tail(values, k, first[k]) for k in range(len(tokens))],
        )
        for place, k in enumerate(rows):
            length = second[k] - first[k]
            joined[0][k] = _concatenated(joined[0][k], own[layer][0][place : place + 1, :, :length])
            joined[1][k] = _concatenated(joined[1][k], own[layer][1][place : place + 1, :, :length])
        late.append((_left_padded(joined[0]), _left_padded(joined[1])))
    ends = [Span(t, max(a, b), len(t.ids) - 1) for t, a, b in zip(tokens, first, second, strict=True)]
    return model.extend_prefix(ends, late, features, False).log_probs


def _check_answers(model: GeneratingModel, prompts: Sequence[Prompt], features: Features, alone: PromptsAlone) -> None:
    tokens = model.prompt_tokens(prompts, False)
    past = _past(model, tokens, [len(t.ids) - 1 for t in tokens], features)
    for options in _OPTIONS:
        expected, actual = alone.answers(prompts, options), model.generate_from_prefix(tokens, past, options, features)
        expect(
            actual == expected,
            f"`generate_from_prefix` with {options.num_beams} beams gives {actual}, `generate` {expected}",
        )


def _past(
    model: CachingModel,
    tokens: Sequence[PromptTokens],
    ends: Sequence[int],
    features: Features,
    together: bool = True,
) -> KeysValues:
    """Keys and values of each prompt's first tokens, padded on the left. They are computed in one batch, or each prompt's
    alone."""
    spans = [Span(t, 0, max(end, 1)) for t, end in zip(tokens, ends, strict=True)]
    parts = [spans] if together else [[span] for span in spans]
    computed = [_keys_values(model.extend_prefix(part, None, features, True)) for part in parts]
    return [(_cut(computed, layer, 0, ends), _cut(computed, layer, 1, ends)) for layer in range(len(computed[0]))]


def _keys_values(extension: PrefixExtension) -> KeysValues:
    assert extension.keys_values is not None
    return extension.keys_values


def _cut(computed: Sequence[KeysValues], layer: int, half: int, ends: Sequence[int]) -> Tensor:
    """Keys (or values) of one layer as one batch, those of each prompt up to its end."""
    rows = [row[None] for part in computed for row in part[layer][half]]
    return _left_padded([row[:, :, :end] for row, end in zip(rows, ends, strict=True)])


def _left_padded(rows: Sequence[Tensor]) -> Tensor:
    """Tensors [1, heads, T, width] as one batch. Padding must not matter: it is filled with 1."""
    import torch

    longest = max(row.shape[2] for row in rows)
    return torch.cat([torch.nn.functional.pad(row, (0, 0, longest - row.shape[2], 0), value=1.0) for row in rows])


def _tail(batch: Tensor, row: int, length: int) -> Tensor:
    return batch[row : row + 1, :, batch.shape[2] - length :]


def _rows(batch: Tensor, rows: Sequence[int]) -> Tensor:
    return batch[list(rows)]


def _concatenated(one: Tensor, other: Tensor) -> Tensor:
    import torch

    return torch.cat([one, other], dim=2)


def _same(actual: Tensor, expected: Sequence[float], how: str, tolerance: float) -> None:
    expect_equal(actual.tolist(), list(expected), f"prompts computed {how} have other log-probabilities", tolerance)
