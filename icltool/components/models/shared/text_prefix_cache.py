"""The prefix cache of text-only language models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.decoder_prefix_cache import DecoderPrefixCache, layers_support_prefix_cache
from icltool.components.models.shared.prompt_format import PromptFormat
from icltool.components.models.shared.tokens import check_length, check_prompts
from icltool.contracts import Prompt, PromptTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icltool.components.models.shared.loading import Network

#: Architectures tested to give the same results with a prefix cache as without. Prompts of others are computed whole.
WITH_PREFIX_CACHE = frozenset(
    {"gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "olmo2", "opt", "phi", "phi3",
     "qwen2", "qwen3", "stablelm"}
)  # fmt: skip


class TextPrefixCache(DecoderPrefixCache):
    """SupportsPrefixCache and GeneratesFromPrefix of a TextModel."""

    def __init__(
        self, model: Network, tokenizer: PreTrainedTokenizerBase, device: torch.device, prompt_format: PromptFormat
    ) -> None:
        super().__init__(model, model.base_model, tokenizer, device)
        self._format = prompt_format

    def prompt_tokens(self, prompts: Sequence[Prompt], with_target: bool) -> list[PromptTokens]:
        """See SupportsPrefixCache. The query begins after the last separator of demonstrations."""
        check_prompts(prompts, with_target)
        if not prompts:
            return []
        texts = [p.text + p.target if with_target else p.text for p in prompts]
        encoded = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        limit = self._limit()
        return [
            self._tokens(ids, [end for _, end in offsets], prompt.text, limit)
            for ids, offsets, prompt in zip(encoded["input_ids"], encoded["offset_mapping"], prompts, strict=True)
        ]

    def _tokens(self, ids: Sequence[int], ends: Sequence[int], text: str, limit: int | None) -> PromptTokens:
        check_length(len(ids), limit)
        separator = self._format.separator
        query = max(text.rfind(separator) + len(separator) if separator in text else 0, len(self._format.start))
        target = next((k for k, end in enumerate(ends) if end > len(text)), len(ids))
        shared = next((k for k, end in enumerate(ends) if end > query), len(ids))
        return PromptTokens(tuple(ids), tuple(ids), target, min(shared, target), ())


def text_prefix_cache(
    model: Network, tokenizer: PreTrainedTokenizerBase, device: torch.device, prompt_format: PromptFormat
) -> TextPrefixCache | None:
    """The prefix cache of this model; None for an architecture that was not tested."""
    if model.config.model_type not in WITH_PREFIX_CACHE or not layers_support_prefix_cache(model.config):
        return None
    return TextPrefixCache(model, tokenizer, device, prompt_format)
