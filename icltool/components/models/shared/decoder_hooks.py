"""What adapters that support decoder hooks share (SupportsDecoderHooks)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.adapter import PromptAdapter
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


class HookedDecoder(PromptAdapter):
    """SupportsDecoderHooks, except `answer_batch`, for an adapter whose `model` is a transformers model with a head."""

    def _prompt_identity(self) -> object:
        """What determines the prompts; its repr is the same in every process."""
        return self.format

    def base_model(self) -> ModelIdentity:
        """See SupportsDecoderHooks."""
        width = int(self.model.config.get_text_config().hidden_size)
        template = template_hash(self._prompt_identity())
        return ModelIdentity(self.name, weights_hash(self.source), template, len(self.shifted_modules()), width)

    def decoder_layers(self) -> Sequence[torch.nn.Module]:
        """See SupportsDecoderHooks."""
        return stacked_layers(self.model)

    def shifted_modules(self) -> Sequence[torch.nn.Module]:
        """See SupportsDecoderHooks: the decoder's layers themselves, unless the adapter overrides this."""
        return self.decoder_layers()

    def attention_heads(self) -> Sequence[AttentionHeads]:
        """See SupportsDecoderHooks."""
        config = self.model.config.get_text_config()
        return [attention_heads(_attention_of(layer), config) for layer in self.decoder_layers()]

    def answer_logits(self, batch: AnswerBatch) -> torch.Tensor:
        """See SupportsDecoderHooks."""
        return logits_at(self.model, batch.inputs, batch.rows, batch.columns)


def template_hash(prompt_format: object) -> str:
    """A hash of a prompt format: 12 hex characters."""
    return hashlib.sha256(repr(prompt_format).encode()).hexdigest()[:12]


def stacked_layers(model: Network) -> list[torch.nn.Module]:
    """The layers of a transformers model's text decoder. Raises ConfigError if it is not a stack of layers."""
    decoder = model.get_decoder()
    count = int(model.config.get_text_config().num_hidden_layers)
    stacks = [
        (name.count("."), part)
        for name, part in decoder.named_modules()
        if isinstance(part, torch.nn.ModuleList) and len(part) == count
    ]
    if not stacks:
        raise ConfigError(
            f"the decoder of this model ({type(decoder).__name__}) is not a stack of {count} layers",
            "methods that change decoder layers cannot be used with this model",
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
        # surplus columns hold something besides each head's query, such as gates
        if columns % width == 0 and query.out_features == columns:
            return AttentionHeads(columns // width, width, query, value, output)
    raise ConfigError(
        f"the attention of this model ({type(attention).__name__}) does not have separate projections for each head",
        "methods that change single heads cannot be used with this model; --method live shifts whole layers",
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

    The head receives only the states at these positions, as one row: whatever the model does to its logits afterwards
    (capping, scaling) is its own code.
    """
    cut: list[torch.Tensor] = []

    def at_positions(head: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        cut.append(arguments[0])
        return (arguments[0][rows.to(arguments[0].device), columns.to(arguments[0].device)][None], *arguments[1:])

    head = model.get_output_embeddings()
    hook = None if head is None else head.register_forward_pre_hook(at_positions)
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        if hook is not None:
            hook.remove()
    selected: torch.Tensor = logits[0] if cut else logits[rows.to(logits.device), columns.to(logits.device)]
    return selected.to(rows.device)


def _attention_of(layer: torch.nn.Module) -> torch.nn.Module:
    return next((getattr(layer, name) for name in _ATTENTIONS if hasattr(layer, name)), layer)
