"""The part of `check_model` for models with decoder hooks (SupportsDecoderHooks)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from icltool.components.interventions.hooks import changed_outputs
from icltool.contracts import (
    AnswerBatch,
    Features,
    GeneratesFromPrefix,
    GenerationOptions,
    ModelIdentity,
    Prompt,
    Span,
    SupportsPrefixCache,
    TargetScore,
)
from icltool.contracts.intervention import NamesCheckpointedLayers
from icltool.testing.alone import PromptsAlone
from icltool.testing.expectations import expect, expect_equal, expect_error
from icltool.testing.heads import HookedModel, check_heads

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Module

    Change = Callable[[Tensor], Tensor]

_OPTIONS = (GenerationOptions(max_new_tokens=4, num_beams=1), GenerationOptions(max_new_tokens=4, num_beams=3))
_SEEDS = 8


def check_hooks(model: HookedModel, prompts: Sequence[Prompt], features: Features, tolerance: float) -> None:
    """Checks a SupportsDecoderHooks model on three prompts or more, of several lengths and targets.

    `base_model` has the number of shifted modules, one per layer, and the width of the states. Log-probabilities from
    `answer_logits` add up to `score`, in any batch and order, and logits belong to the batch's positions. A vector that a hook
    adds changes scores and answers, in batches as in single prompts, in the prompt, in each new token, and in stored keys and
    values. Gradients reach the added vectors at every layer, also with gradient checkpointing, and no weight of the model.
    After an exception in a hook, everything is as before without hooks, bit for bit. The heads of `attention_heads` are at
    their stated places. `tolerance` is in nats.
    """
    _check_base(model)
    scores = _target_scores(model, prompts, features)
    before, counts = [score.log_prob for score in scores], [score.tokens for score in scores]
    batch = model.answer_batch(prompts, features)
    _check_batch(batch, counts)
    logits = _without_gradients(model, batch)
    sizes = _check_outputs(model, batch)
    _check_answers(model, prompts, features, before, counts, tolerance)
    _check_places(model, batch, logits, tolerance)
    _check_bad(model, prompts[0], features)
    width = model.base_model().width
    shift = [size * _noise(width, place) for place, size in enumerate(sizes)]
    _check_gradients(model, batch, logits, shift, tolerance)
    plain = _answers(model, prompts, features)
    with adding(model.shifted_modules(), shift):
        alone = PromptsAlone(model, features)
        _check_shifted(model, alone, prompts, features, before, plain, tolerance)
        if isinstance(model, SupportsPrefixCache):
            _check_prefix_cache(model, alone, prompts, features, tolerance)
    _check_every_token(model, prompts, features)
    check_heads(model, batch, tolerance)
    _check_failure(model, prompts, features, batch)
    expect_equal(_scores(model, prompts, features), before, "scores are not as before once hooks are removed")
    expect_equal(
        _numbers(_without_gradients(model, batch)), _numbers(logits), "logits are not as before once hooks are removed"
    )


def adding(modules: Sequence[Module], vectors: Sequence[Tensor]) -> AbstractContextManager[None]:
    """A context in which each module's vector is added to its output, at every token."""
    return changed_outputs(modules, [_Added(vector) for vector in vectors])


class _Added:
    def __init__(self, vector: Tensor) -> None:
        self._vector = vector

    def __call__(self, states: Tensor) -> Tensor:
        return states + self._vector.to(states)


def _check_base(model: HookedModel) -> None:
    base = model.base_model()
    expect(isinstance(base, ModelIdentity), f"`base_model` must give a ModelIdentity, not {type(base).__name__}")
    expect(base.name == model.name, f"`base_model` has the name {base.name!r}, the model {model.name!r}")
    expect(bool(base.weights and base.template), "`base_model` needs hashes of weights and template")
    expect(model.base_model() == base, "`base_model` must stay as it is")
    layers, modules = model.decoder_layers(), model.shifted_modules()
    expect(
        len(layers) == len(modules) > 0,
        f"{len(modules)} shifted modules for {len(layers)} layers: there is one for each",
    )
    expect(base.sites == len(modules), f"`base_model` has {base.sites} sites, of {len(modules)} shifted modules")
    for name, parts in (("decoder_layers", layers), ("shifted_modules", modules)):
        expect(len({id(part) for part in parts}) == len(parts), f"`{name}` names a module twice")


def _check_outputs(model: HookedModel, batch: AnswerBatch) -> list[float]:
    """Checks that each shifted module's output has the stated width; returns the root mean square of each."""
    seen: dict[int, Tensor] = {}
    layers, modules, width = model.decoder_layers(), model.shifted_modules(), model.base_model().width
    parts = list({id(part): part for part in (*layers, *modules)}.values())

    def keeping(part: Module) -> Change:
        def keep(states: Tensor) -> Tensor:
            expect(id(part) not in seen, "a module runs twice in one forward pass")
            seen[id(part)] = states.detach().float()
            return states

        return keep

    with changed_outputs(parts, [keeping(part) for part in parts]):
        _without_gradients(model, batch)
    expect(len(seen) == len(parts), f"{len(parts) - len(seen)} modules that are named never run")
    for states in seen.values():
        actual = tuple(states.shape)
        fits = len(actual) == 3 and actual[0] == len(batch.lasts) and actual[2] == width
        expect(fits, f"a module's output is [{len(batch.lasts)}, T, {width}], as `base_model` says; not {list(actual)}")
    return [float(seen[id(module)].square().mean().sqrt()) for module in modules]


def _check_answers(
    model: HookedModel,
    prompts: Sequence[Prompt],
    features: Features,
    before: Sequence[float],
    counts: Sequence[int],
    tolerance: float,
) -> None:
    """Sums of log-probabilities in several batches; the counts and positions of each."""
    turned = list(range(len(prompts)))[::-1]
    groups = [turned, *([i] for i in turned[:2])]
    for rows in groups:
        batch = model.answer_batch([prompts[i] for i in rows], features)
        _check_batch(batch, [counts[i] for i in rows])
        sums = _sums(batch, _without_gradients(model, batch))
        expected = [before[i] for i in rows]
        expect_equal(sums, expected, f"`answer_logits` of {len(rows)} prompts do not give what `score` does", tolerance)
    if features is not None:
        batch = model.answer_batch(prompts, None)
        sums = _sums(batch, _without_gradients(model, batch))
        expect_equal(sums, before, "`answer_logits` from images differ from those from their features", tolerance)


def _check_batch(batch: AnswerBatch, counts: Sequence[int]) -> None:
    total = sum(counts)
    for name in ("rows", "columns", "tokens"):
        actual = getattr(batch, name)
        expect(tuple(actual.shape) == (total,), f"`{name}` has one entry for each of {total} target tokens")
        expect(str(actual.dtype) == "torch.int64", f"`{name}` is int64, not {actual.dtype}")
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    expect_equal(batch.rows.tolist(), rows, "`rows` go through targets prompt by prompt")
    lasts = batch.lasts.tolist()
    expect(len(lasts) == len(counts), f"`lasts` has one entry for each of {len(counts)} prompts, not {len(lasts)}")
    columns = [last + k for last, count in zip(lasts, counts, strict=True) for k in range(count)]
    expect_equal(batch.columns.tolist(), columns, "`columns` begin at `lasts`, and follow each other within a target")


def _check_places(model: HookedModel, batch: AnswerBatch, logits: Tensor, tolerance: float) -> None:
    """A change after the last layer at some positions changes the logits there and no others."""
    last = model.decoder_layers()[-1]
    first = batch.columns == batch.lasts[batch.rows]
    for chosen, what in ((first, "of first tokens"), (~first, "of later tokens")):
        if not bool(chosen.any()):
            continue

        def change(states: Tensor, chosen: Tensor = chosen) -> Tensor:
            rows, columns = batch.rows[chosen].to(states.device), batch.columns[chosen].to(states.device)
            moved = states.clone()
            moved[rows, columns] += 3 * _noise(states.shape[-1], 7).to(states) * states[rows, columns].std()
            return moved

        with changed_outputs([last], [change]):
            apart = (_without_gradients(model, batch) - logits).abs().amax(-1)
        expect(
            bool((apart[chosen] > tolerance).all() and (apart[~chosen] <= tolerance).all()),
            f"`rows` and `columns` {what} are not the positions that their logits are made at",
        )


def _check_bad(model: HookedModel, prompt: Prompt, features: Features) -> None:
    for empty in (Prompt(prompt.text, prompt.images), Prompt("", prompt.images, prompt.target)):
        expect_error(
            ValueError,
            lambda empty=empty: model.answer_batch([empty], features),  # type: ignore[misc]
            "`answer_batch` of an empty text or target is a ValueError",
        )


def _check_gradients(
    model: HookedModel, batch: AnswerBatch, logits: Tensor, vectors: Sequence[Tensor], tolerance: float
) -> None:
    import torch

    with torch.enable_grad():
        expect(
            not model.answer_logits(batch).requires_grad, "without hooks, logits depend on something that is learned"
        )
    plain = _gradients(model, batch, vectors, lambda: ExitStack())
    for place, gradient in enumerate(plain):
        reached = bool(gradient.isfinite().all() and (gradient != 0).any())
        expect(reached, f"no gradient reaches what is added to the output of shifted module {place}")
    layers = model.checkpointed_layers() if isinstance(model, NamesCheckpointedLayers) else model.decoder_layers()
    expect(len(layers) > 0, "there must be a layer that gradient checkpointing computes twice")
    twice = _gradients(model, batch, vectors, lambda: _computed_twice(layers))
    for one, other in zip(plain, twice, strict=True):
        apart = float((one - other).abs().max())
        expect(
            apart <= 10 * tolerance * max(1.0, float(one.abs().max())),
            "gradients differ where layers are computed twice (gradient checkpointing)",
        )
    for weight in _weights(model):
        expect(not weight.requires_grad and weight.grad is None, "the model's own weights take part in training")
    with torch.no_grad(), adding(model.shifted_modules(), [v.clone().requires_grad_() for v in vectors]):
        expect(not model.answer_logits(batch).requires_grad, "the caller's `torch.no_grad()` is overridden")


def _gradients(
    model: HookedModel,
    batch: AnswerBatch,
    vectors: Sequence[Tensor],
    around: Callable[[], AbstractContextManager[object]],
) -> list[Tensor]:
    """Gradients of the targets' log-probability with respect to the added vectors."""
    import torch

    leaves = [0.1 * vector.clone() for vector in vectors]
    for leaf in leaves:
        leaf.requires_grad_()
    with torch.enable_grad(), around(), adding(model.shifted_modules(), leaves):
        logits = model.answer_logits(batch)
        expect(logits.requires_grad, "no gradient reaches what is added to the outputs of shifted modules")
        torch.log_softmax(logits.float(), -1).gather(1, batch.tokens.to(logits.device)[:, None]).sum().backward()  # type: ignore[no-untyped-call]
    return [torch.full_like(leaf, float("nan")) if leaf.grad is None else leaf.grad for leaf in leaves]


@contextmanager
def _computed_twice(layers: Sequence[Module]) -> Iterator[None]:
    """A context in which the backward pass computes each layer again, as gradient checkpointing does."""
    from torch.utils.checkpoint import checkpoint

    own = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            vars(layer).pop("forward", None)
            if forward is not None:
                layer.forward = forward


def _check_shifted(
    model: HookedModel,
    alone: PromptsAlone,
    prompts: Sequence[Prompt],
    features: Features,
    before: Sequence[float],
    plain: Mapping[int, Sequence[str]],
    tolerance: float,
) -> None:
    """Within a shift."""
    actual = _scores(model, prompts, features)
    apart = [abs(one - other) for one, other in zip(actual, before, strict=True)]
    expect(min(apart) > tolerance, "a vector added to each shifted module's output leaves a score as it is")
    expect_equal(actual, alone.log_probs(prompts), "under a hook, scores depend on the batch", tolerance)
    batch = model.answer_batch(prompts, features)
    sums = _sums(batch, _without_gradients(model, batch))
    expect_equal(sums, actual, "under a hook, `answer_logits` do not give what `score` does", tolerance)
    answers = _answers(model, prompts, features)
    expect(answers != plain, "a vector added to each shifted module's output leaves all answers as they are")
    for options in _OPTIONS:
        beams, single = options.num_beams, alone.answers(prompts, options)
        expect(answers[beams] == single, f"under a hook, `generate` with {beams} beams depends on the batch")


def _check_prefix_cache(
    model: SupportsPrefixCache,
    alone: PromptsAlone,
    prompts: Sequence[Prompt],
    features: Features,
    tolerance: float,
) -> None:
    """Within a shift: keys and values are those of shifted states."""
    expected = alone.log_probs(prompts)
    for prompt, score, tokens in zip(prompts, expected, model.prompt_tokens(prompts, True), strict=True):
        end, cut = len(tokens.ids) - 1, max(1, tokens.target_start - 1)
        whole = model.extend_prefix([Span(tokens, 0, end)], None, features, False).log_probs.tolist()
        past = model.extend_prefix([Span(tokens, 0, cut)], None, features, True).keys_values
        rest = model.extend_prefix([Span(tokens, cut, end)], past, features, False).log_probs.tolist()
        for log_probs in (whole, rest):
            expect_equal(log_probs, [score], "under a hook, `extend_prefix` does not give what `score` does", tolerance)
        if not isinstance(model, GeneratesFromPrefix):
            continue
        [prompt_tokens] = model.prompt_tokens([prompt], False)
        known = model.extend_prefix(
            [Span(prompt_tokens, 0, len(prompt_tokens.ids) - 1)], None, features, True
        ).keys_values
        assert known is not None
        answer = alone.answers([prompt], _OPTIONS[0])
        actual = model.generate_from_prefix([prompt_tokens], known, _OPTIONS[0], features)
        expect(actual == answer, f"under a hook, `generate_from_prefix` gives {actual}, `generate` {answer}")


def _check_every_token(model: HookedModel, prompts: Sequence[Prompt], features: Features) -> None:
    """If each state after the last layer is the same vector, each next token is the same, whatever the prompt."""
    last, width = model.decoder_layers()[-1], model.base_model().width
    for seed in range(_SEEDS):  # some vectors stand for the end of an answer
        vector = _noise(width, 20 + seed)

        def change(states: Tensor, vector: Tensor = vector) -> Tensor:
            return vector.to(states).expand_as(states)

        with changed_outputs([last], [change]):
            answers = {o.num_beams: _generated(model, prompts, o, features) for o in _OPTIONS}
        for beams, texts in answers.items():
            expect(
                len(set(texts)) == 1,
                f"`generate` with {beams} beams: hooks do not see the last token of the prompt, or new ones: {texts}",
            )
        if any(text.strip() for text, *_ in answers.values()):
            return
    expect(False, "`generate` answers nothing under a hook, whatever it does")


def _check_failure(model: HookedModel, prompts: Sequence[Prompt], features: Features, batch: AnswerBatch) -> None:
    """An exception in a hook reaches the caller; later checks show that it leaves nothing behind."""

    def failing(states: Tensor) -> Tensor:
        raise _FailureError

    actions: tuple[Callable[[], object], ...] = (
        lambda: model.answer_logits(batch),
        lambda: _scores(model, prompts, features),
        lambda: _generated(model, prompts, _OPTIONS[0], features),
    )
    with changed_outputs([model.shifted_modules()[-1]], [failing]):
        for action in actions:
            expect_error(_FailureError, action, "what a hook raises must reach the caller")


class _FailureError(Exception):
    """Raised within a hook."""


def _weights(model: HookedModel) -> list[Tensor]:
    """Parameters of all torch modules of the adapter and its layers."""
    import torch

    held = [part for part in getattr(model, "__dict__", {}).values() if isinstance(part, torch.nn.Module)]
    return [weight for part in (*held, *model.decoder_layers()) for weight in part.parameters()]


def _without_gradients(model: HookedModel, batch: AnswerBatch) -> Tensor:
    import torch

    with torch.no_grad():
        logits: Tensor = model.answer_logits(batch)
    expect(
        logits.ndim == 2 and len(logits) == len(batch.tokens),
        f"`answer_logits` are [{len(batch.tokens)}, vocabulary], not {list(logits.shape)}",
    )
    return logits.float()


def _sums(batch: AnswerBatch, logits: Tensor) -> list[float]:
    """Summed log-probabilities in nats, prompt by prompt."""
    import torch

    picked = torch.log_softmax(logits, -1).gather(1, batch.tokens.to(logits.device)[:, None])[:, 0].double()
    sums = torch.zeros(len(batch.lasts), dtype=torch.float64, device=logits.device)
    actual: list[float] = sums.index_add(0, batch.rows.to(logits.device), picked).tolist()
    return actual


def _noise(width: int, seed: int) -> Tensor:
    """float32 [width], of unit variance, on the CPU."""
    import torch

    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def _numbers(tensor: Tensor) -> NDArray[np.generic]:
    return tensor.cpu().numpy()


def _target_scores(model: HookedModel, prompts: Sequence[Prompt], features: Features) -> list[TargetScore]:
    """In one batch."""
    size = len(prompts)
    return model.score(prompts, size, features) if features is not None else model.score(prompts, size)


def _scores(model: HookedModel, prompts: Sequence[Prompt], features: Features) -> list[float]:
    return [score.log_prob for score in _target_scores(model, prompts, features)]


def _generated(
    model: HookedModel, prompts: Sequence[Prompt], options: GenerationOptions, features: Features
) -> list[str]:
    optional = () if features is None else (features,)
    actual: list[str] = model.generate(prompts, options, len(prompts), *optional)
    return actual


def _answers(model: HookedModel, prompts: Sequence[Prompt], features: Features) -> dict[int, list[str]]:
    """Of one batch, by the number of beams."""
    return {options.num_beams: _generated(model, prompts, options, features) for options in _OPTIONS}
