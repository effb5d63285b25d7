"""The part of `check_model` for the attention heads that a model names (SupportsDecoderHooks)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from icltool.components.interventions.hooks import changed_inputs, changed_outputs
from icltool.contracts import AnswerBatch, AttentionHeads, Model, SupportsDecoderHooks
from icltool.errors import ConfigError
from icltool.testing.expectations import expect

if TYPE_CHECKING:
    from torch import Tensor


class HookedModel(Model, SupportsDecoderHooks, Protocol):
    """A Model with decoder hooks."""


def check_heads(model: HookedModel, batch: AnswerBatch, tolerance: float) -> None:
    """Checks `attention_heads`, unless it raises ConfigError, on the first and the last layer, first and last head.

    Some of a head's queries change all of its columns of the input of `output` and no others; without values there is
    nothing in these; and without a head's columns the logits are others.
    """
    try:
        named = model.attention_heads()
    except ConfigError:
        return
    layers = model.decoder_layers()
    expect(len(named) == len(layers), f"`attention_heads` names {len(named)} layers of {len(layers)}")
    plain = _run(model, batch)[0]
    for heads in dict.fromkeys((0, len(named) - 1)):
        _check_layer(model, batch, named[heads], f"layer {heads}", plain, tolerance)


def _check_layer(
    model: HookedModel, batch: AnswerBatch, heads: AttentionHeads, layer: str, plain: Tensor, tolerance: float
) -> None:
    columns = heads.heads * heads.head_width
    _, seen = _run(model, batch, heads)
    actual = list(seen.shape)
    expect(
        len(actual) == 3 and actual[2] == columns,
        f"the input of `output` in {layer} is [B, T, {heads.heads} x {heads.head_width}], not {actual}",
    )
    for head in dict.fromkeys((0, heads.heads - 1)):
        own = slice(head * heads.head_width, (head + 1) * heads.head_width)
        without, _ = _run(model, batch, heads, lost=own)
        expect(
            float((without - plain).abs().max()) > tolerance,
            f"the columns of head {head} in {layer} make no difference to the logits",
        )
        some = slice(own.start, own.start + max(1, heads.head_width // 2))
        _, turned = _run(model, batch, heads, turned=some)
        apart = (turned - seen)[batch.rows, batch.columns].abs().amax(0)
        scale = max(1.0, float(seen.abs().max()))
        others = [float(part.max()) for part in (apart[: own.start], apart[own.stop :]) if len(part)]
        expect(
            float(apart[own].min()) > 0 and max(others, default=0.0) <= tolerance * scale,
            f"the columns of head {head} in the output of `query` in {layer} are not that head's queries alone",
        )
    if heads.value is not heads.query:
        _, empty = _run(model, batch, heads, valueless=True)
        expect(float(empty.abs().max()) <= tolerance, f"`value` does not make the values of {layer}")


def _run(
    model: HookedModel,
    batch: AnswerBatch,
    heads: AttentionHeads | None = None,
    lost: slice | None = None,
    turned: slice | None = None,
    valueless: bool = False,
) -> tuple[Tensor, Tensor]:
    """(logits, the input of `output`, finite) in float32: without columns `lost` of that input, with columns `turned` of the
    queries negated (which leaves a norm over all heads as it is), or without values."""
    import torch

    seen: list[Tensor] = [torch.zeros(0)]

    def take(states: Tensor) -> Tensor:
        seen[0] = states.float().nan_to_num().to(batch.rows.device)
        return states if lost is None else _scaled(states, lost, 0)

    def ask(queries: Tensor) -> Tensor:
        if heads is not None:
            columns = heads.heads * heads.head_width
            expect(queries.shape[-1] >= columns, f"the output of `query` has {queries.shape[-1]} columns of {columns}")
        return queries if turned is None else _scaled(queries, turned, -1)

    with torch.no_grad(), ExitStack() as stack:
        if heads is not None:
            stack.enter_context(changed_inputs([heads.output], [take]))
            stack.enter_context(changed_outputs([heads.query], [ask]))
            if valueless:
                stack.enter_context(changed_outputs([heads.value], [torch.zeros_like]))
        logits = model.answer_logits(batch).float()
    return logits, seen[0]


def _scaled(states: Tensor, columns: slice, factor: int) -> Tensor:
    changed = states.clone()
    changed[..., columns] *= factor
    return changed
