"""The prefix cache of adapters whose language model is a transformers decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.loading import text_limit
from icltool.components.models.shared.prefix_cache import (
    PaddedSpans,
    PredictingPositions,
    filled_cache,
    padded_prompts,
    padded_spans,
    predicting_positions,
    span_log_probs,
    to_device,
)
from icltool.components.models.shared.scoring import beam_options, decoded
from icltool.components.models.shared.transformers_cache import (
    cache_of_prefix,
    forward_cache,
    generation_cache,
    own_keys_values,
)
from icltool.contracts import Features, GenerationOptions, KeysValues, PrefixExtension, Prompt, PromptTokens, Span

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from icltool.components.models.shared.loading import Network

#: Layers whose attention mask is known here; all others (recurrent, chunked, compressed) have other kinds of caches.
_FULL, _SLIDING = "full_attention", "sliding_attention"
#: Rotary frequencies that change with the length of the input: the keys of a prefix differ between prompts.
_LENGTH_DEPENDENT = frozenset({"dynamic", "longrope"})


class DecoderPrefixCache(ABC):
    """SupportsPrefixCache and GeneratesFromPrefix for one loaded model; subclasses turn prompts into tokens.

    `model` is the causal model with its head, `decoder` the stack of layers within it; `layers_support_prefix_cache` must
    hold for its configuration. `barred` are ids that no answer contains.
    """

    def __init__(
        self,
        model: Network,
        decoder: Network,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
        barred: Sequence[int] = (),
    ) -> None:
        self._model, self._decoder, self._tokenizer, self.device = model, decoder, tokenizer, device
        self._config, self._head = decoder.config, model.get_output_embeddings()
        self._pad = int(tokenizer.pad_token_id or 0)
        self._barred = list(barred)
        #: Number of logits.
        self._vocabulary = int(self._config.vocab_size)

    @abstractmethod
    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        """See SupportsPrefixCache."""

    @torch.inference_mode()
    def extend_prefix(
        self, spans: Sequence[Span], past: KeysValues | None, features: Features, keep: bool
    ) -> PrefixExtension:
        """See SupportsPrefixCache."""
        columns = 0 if past is None else max(span.start for span in spans)
        batch = padded_spans(spans, self._pad, self.device, columns)
        positions = predicting_positions(spans, self.device)
        layers = self._config.num_hidden_layers
        cache = cache_of_prefix(past, layers, columns, keep) if keep or past is not None else None
        with self._extending(batch, positions, spans, features) as inputs:
            output = self._decoder(**inputs, **forward_cache(self._decoder, cache), use_cache=cache is not None)
        scores = span_log_probs(output.last_hidden_state, positions, self._logits, self._vocabulary)
        return PrefixExtension(scores, own_keys_values(cache) if keep and cache is not None else None)

    @torch.inference_mode()
    def generate_from_prefix(
        self, prompts: Sequence[PromptTokens], past: KeysValues, options: GenerationOptions, features: Features
    ) -> list[str]:
        """See GeneratesFromPrefix."""
        ids, present = padded_prompts(prompts, self._pad, self._limit(options.max_new_tokens))
        cache = filled_cache(past, options.num_beams)
        search = beam_options(self._pad, options, [p.draw for p in prompts])
        if self._barred:
            search["suppress_tokens"] = self._barred
        with self._generating(prompts, ids, options.num_beams, features) as inputs:
            output = self._model.generate(
                input_ids=to_device(ids, self.device),
                attention_mask=to_device(present, self.device),
                **generation_cache(cache),
                **inputs,
                **search,
            )
        return decoded(self._tokenizer, output[:, ids.shape[1] :])

    @contextmanager
    def _extending(
        self, batch: PaddedSpans, positions: PredictingPositions, spans: Sequence[Span], features: Features
    ) -> Iterator[Mapping[str, object]]:
        """The decoder's inputs, inside the contexts in which it must run."""
        yield {**self._inputs(batch, spans, features), "attention_mask": self._masks(batch, spans)}

    @contextmanager
    def _generating(
        self, prompts: Sequence[PromptTokens], ids: torch.Tensor, beams: int, features: Features
    ) -> Iterator[Mapping[str, object]]:
        """Inputs of the model's `generate` besides tokens, mask and prefix, inside the contexts in which it must run."""
        yield {key: to_device(value, self.device) for key, value in self._generation_inputs(prompts, ids).items()}

    def _limit(self, reserve: int = 0) -> int | None:
        """The language model's token limit less `reserve`."""
        return text_limit(self._model.config, reserve)

    def _masks(self, batch: PaddedSpans, spans: Sequence[Span]) -> torch.Tensor | dict[str, torch.Tensor]:
        """The decoder's `attention_mask`."""
        return attention_masks(batch, self._config, self._model.dtype)

    def _inputs(self, batch: PaddedSpans, spans: Sequence[Span], features: Features) -> dict[str, torch.Tensor]:
        """The decoder's inputs: tokens or their embeddings [B, S, width], and positions."""
        return {"input_ids": batch.ids, "position_ids": batch.positions}

    def _generation_inputs(self, prompts: Sequence[PromptTokens], ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Inputs of the model's `generate` besides tokens [B, T], mask and prefix; on the CPU."""
        return {}

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._head(states).to(states.device)
        cap = getattr(self._config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap


def layers_support_prefix_cache(config: PreTrainedConfig) -> bool:
    """Whether the keys and values of a prefix are independent of what follows in a decoder of this configuration, and every
    layer's attention is full or a sliding window."""
    kinds = _layer_kinds(config)
    return (
        kinds <= {_FULL, _SLIDING}
        and (_SLIDING not in kinds or isinstance(config.sliding_window, int))
        and not _rope_types(config) & _LENGTH_DEPENDENT
        and getattr(config, "use_bidirectional_attention", None) in (None, False, "vision")
    )


def attention_masks(
    batch: PaddedSpans, config: PreTrainedConfig, dtype: torch.dtype
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The `attention_mask` of a decoder for these spans: [B, 1, S, P + S] to be added to scores, one per kind of layer if the
    decoder has several. Flash attention takes [B, P + S] and does the rest itself."""
    if "flash" in str(config._attn_implementation):
        return batch.present
    kinds = _layer_kinds(config)
    masks = {}
    for kind in kinds:
        seen = batch if kind == _FULL else batch.within(config.sliding_window)
        masks[kind] = seen.additive(dtype)
    return masks if len(masks) > 1 else masks[next(iter(kinds))]


def _layer_kinds(config: PreTrainedConfig) -> set[str]:
    named = getattr(config, "layer_types", None)
    if named is not None:
        return set(named)
    return {_FULL if getattr(config, "sliding_window", None) is None else _SLIDING}


def _rope_types(config: PreTrainedConfig) -> set[str]:
    """Kinds of rotary frequencies, of all kinds of layers."""
    parameters = getattr(config, "rope_parameters", None) or {}
    parts = [parameters, *(part for part in parameters.values() if isinstance(part, Mapping))]
    return {str(part["rope_type"]) for part in parts if "rope_type" in part}
