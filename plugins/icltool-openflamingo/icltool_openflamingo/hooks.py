"""Decoder hooks for methods that change hidden states (`icltool.SupportsDecoderHooks`)."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from icltool import (
    Adapter,
    AnswerBatch,
    AttentionHeads,
    Features,
    ModelIdentity,
    PaddedRows,
    Prompt,
    TokenizedPrompt,
    answers_at,
    attention_heads,
    template_hash,
    tokenize,
    weights_hash,
)
from icltool_openflamingo.places import Parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class HookedFlamingo(Adapter, ABC):
    """SupportsDecoderHooks of the adapter, which has `model`, an open_flamingo `Flamingo`."""

    model: Any
    device: torch.device
    tokenizer: PreTrainedTokenizerBase
    _weights: str

    @abstractmethod
    def _limit(self) -> int | None: ...

    @abstractmethod
    def _padded(self, tokens: Sequence[TokenizedPrompt], side: str) -> PaddedRows: ...

    @abstractmethod
    def _media(self, prompts: Sequence[Prompt], batch_size: int, features: Features) -> torch.Tensor: ...

    @abstractmethod
    def _states(self, rows: PaddedRows, media: torch.Tensor) -> torch.Tensor: ...

    def base_model(self) -> ModelIdentity:
        """See SupportsDecoderHooks. Checkpoint, language model and CLIP make up the weights."""
        sites, width = len(self.shifted_modules()), int(self.model.lang_encoder.config.hidden_size)
        return ModelIdentity(self.name, self._weights, template_hash(self.format), sites, width)

    def decoder_layers(self) -> Sequence[Any]:
        """See SupportsDecoderHooks: the language model's own layers, without cross attention: the image to which a
        token attends is known only during a forward pass, so it cannot be computed again for the backward pass."""
        return [layer.decoder_layer for layer in self.shifted_modules()]

    def shifted_modules(self) -> Sequence[Any]:
        """See SupportsDecoderHooks: LIVE shifts the output of each language block, cross attention and layer."""
        return list(self.model.lang_encoder._get_decoder_layers())

    def attention_heads(self) -> Sequence[AttentionHeads]:
        """See SupportsDecoderHooks.

        In MPT one matrix computes queries, keys and values. If queries are layer normalised over all heads (MPT-1B), its
        output includes that.
        """
        config = self.model.lang_encoder.config
        if config.model_type != "mpt":
            return [attention_heads(layer.self_attn, config) for layer in self.decoder_layers()]
        attentions = [layer.attn for layer in self.decoder_layers()]
        return [AttentionHeads(a.n_heads, a.head_dim, a.Wqkv, a.Wqkv, a.out_proj) for a in attentions]

    def answer_batch(self, prompts: Sequence[Prompt], features: Features) -> AnswerBatch:
        """See SupportsDecoderHooks."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=self._limit())
        with torch.no_grad():
            rows = self._padded(tokens, "right")
            media = self._media(prompts, len(prompts), features)
        inputs = {"input_ids": rows.ids, "mask": rows.mask, "media": media}
        return answers_at(inputs, rows.spans(tokens))

    def answer_logits(self, batch: AnswerBatch) -> torch.Tensor:
        """See SupportsDecoderHooks."""
        inputs = batch.inputs
        states = self._states(PaddedRows(inputs["input_ids"], inputs["mask"]), inputs["media"])
        logits: torch.Tensor = self.model.lang_encoder.get_output_embeddings()(states[batch.rows, batch.columns])
        return logits


def hash_of(parts: Parts) -> str:
    """A hash of the weights of all parts, independent of their location: 12 hex characters."""
    sources = (str(parts.checkpoint.parent), parts.language_model.source, str(parts.clip))
    joined = "-".join(weights_hash(source) for source in sources)
    return hashlib.sha256(joined.encode()).hexdigest()[:12]
