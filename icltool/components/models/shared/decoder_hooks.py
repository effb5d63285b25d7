"""What adapters share that offer hooks into their decoder (SupportsDecoderHooks)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.adapter import Adapter
from icltool.components.models.shared.tokens import predicting
from icltool.components.models.shared.weights import weights_hash
from icltool.contracts import AnswerBatch, AttentionHeads, ModelIdentity
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from icltool.components.models.shared.loading import Network

#: Names of a decoder layer's self-attention, and of its output projection, in transformers.
_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_OUTPUTS = ("o_proj", "out_proj", "dense")


class HookedDecoder(Adapter):
    """SupportsDecoderHooks, but for `answer_batch`, of an adapter whose `model` is a transformers model with a head."""

    def _written(self) -> object:
        """What decides the prompts; its repr is the same in every process."""
        return self.format

    def base_model(self) -> ModelIdentity:
        """See SupportsDecoderHooks."""
        width = int(self.model.config.get_text_config().hidden_size)
        template = template_hash(self._written())
        return ModelIdentity(self.name, weights_hash(self.source), template, len(self.shifted_modules()), width)

    def decoder_layers(self) -> Sequence[torch.nn.Module]:
        """See SupportsDecoderHooks."""
        return stacked_layers(self.model)

    def shifted_modules(self) -> Sequence[torch.nn.Module]:
        """See SupportsDecoderHooks: the decoder's layers themselves, unless the adapter says otherwise."""
        return self.decoder_layers()

    def attention_heads(self) -> Sequence[AttentionHeads]:
        """See SupportsDecoderHooks."""
        config = self.model.config.get_text_config()
        return [attention_heads(_attention_of(layer), config) for layer in self.decoder_layers()]

    def answer_logits(self, batch: AnswerBatch) -> torch.Tensor:
        """See SupportsDecoderHooks."""
        return logits_at(self.model, batch.inputs, batch.rows, batch.columns)


def template_hash(prompt_format: object) -> str:
    """12 hex characters of a prompt format."""
    return hashlib.sha256(repr(prompt_format).encode()).hexdigest()[:12]


def stacked_layers(model: Network) -> list[torch.nn.Module]:
    """The layers of a transformers model's text decoder. ConfigError where it is no stack of layers."""
    decoder = model.get_decoder()
    count = int(model.config.get_text_config().num_hidden_layers)
    stacks = [
        (name.count("."), part)
        for name, part in decoder.named_modules()
        if isinstance(part, torch.nn.ModuleList) and len(part) == count
    ]
    if not stacks:
        raise ConfigError(
            f"the decoder of this model ({type(decoder).__name__}) is no stack of {count} layers",
            "methods that change its layers cannot be used with it",
        )
    return list(min(stacks, key=lambda stack: stack[0])[1])  # within a layer there may be as many experts


def attention_heads(attention: torch.nn.Module, config: PreTrainedConfig) -> AttentionHeads:
    """The heads of an attention module of transformers that has `q_proj`, `v_proj` and an output projection.

    `config` is the text configuration. Raises ConfigError for another kind of attention.
    """
    output = next((getattr(attention, name) for name in _OUTPUTS if hasattr(attention, name)), None)
    query, value = (getattr(attention, name, None) for name in ("q_proj", "v_proj"))
    if (
        isinstance(query, torch.nn.Linear)
        and isinstance(value, torch.nn.Linear)
        and isinstance(output, torch.nn.Linear)
    ):
        columns = output.in_features
        width = int(getattr(attention, "head_dim", None) or columns // int(config.num_attention_heads))
        # more columns than heads take hold something else beside each head's query: gates, say
        if columns % width == 0 and query.out_features == columns:
            return AttentionHeads(columns // width, width, query, value, output)
    raise ConfigError(
        f"the attention of this model ({type(attention).__name__}) has no heads with projections of their own",
        "methods that change single heads cannot be used with it: --method live shifts whole layers",
    )


def answers_at(inputs: Mapping[str, torch.Tensor], spans: Sequence[tuple[int, int]]) -> AnswerBatch:
    """The batch whose targets are at the positions `spans`, (first, end) in each row.

    `inputs` are the model's own, the padded `input_ids` int64 [B, T] among them.
    """
    ids = inputs["input_ids"]
    at = torch.tensor(predicting(spans), device=ids.device)
    lasts = torch.tensor([first - 1 for first, _ in spans], device=ids.device)
    return AnswerBatch(inputs, at[0], at[1], ids[at[0], at[1] + 1], lasts)


def logits_at(
    model: Network, inputs: Mapping[str, torch.Tensor], rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Logits [N, vocabulary] of a transformers model at these positions of a padded batch, by one forward pass.

    The head is given the states at these positions alone, as one row: whatever the model does to its logits afterwards
    (capping, scaling) is its own code.
    """
    cut: list[torch.Tensor] = []

    def at_positions(head: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        cut.append(given[0])
        return (given[0][rows.to(given[0].device), columns.to(given[0].device)][None], *given[1:])

    head = model.get_output_embeddings()
    hook = None if head is None else head.register_forward_pre_hook(at_positions)
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        if hook is not None:
            hook.remove()
    found: torch.Tensor = logits[0] if cut else logits[rows.to(logits.device), columns.to(logits.device)]
    return found.to(rows.device)


def _attention_of(layer: torch.nn.Module) -> torch.nn.Module:
    return next((getattr(layer, name) for name in _ATTENTIONS if hasattr(layer, name)), layer)
