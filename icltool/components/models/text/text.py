"""Text-only causal language models (transformers' AutoModelForCausalLM), for text tasks such as classification."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from icltool.components.models.shared.decoder_hooks import HookedDecoder, answers_at
from icltool.components.models.shared.loading import loading_errors, read_config, text_limit
from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.shared.processed import prepare_tokenizer
from icltool.components.models.shared.prompt_format import TEXT, PromptFormat, own_prompt
from icltool.components.models.shared.scoring import (
    beam_options,
    decoded,
    end_tokens,
    forward_scores,
    plain_generation,
)
from icltool.components.models.shared.text_prefix_cache import text_prefix_cache
from icltool.components.models.shared.tokens import (
    TokenizedPrompt,
    batches_by_length,
    in_batches,
    padded_rows,
    text_lengths,
    tokenize,
)
from icltool.components.models.shared.weights import Weights, weights_of
from icltool.contracts import AnswerBatch, Example, Features, GenerationOptions, Prompt, TargetScore, Task, task_name
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextModel(HookedDecoder):
    """The adapter. It reads no images: examples with an image are refused.

    `padding_side` applies to scoring; results do not depend on it. Positions are always those of the unpadded prompt. Models
    of the architectures in WITH_PREFIX_CACHE reuse keys and values of a common prefix (SupportsPrefixCache,
    GeneratesFromPrefix).
    """

    padding_side = "right"

    options_model = RemoteCodeOptions
    format: PromptFormat

    def __init__(self, options: RemoteCodeOptions) -> None:
        """Loads tokenizer and weights. Raises ConfigError when weights are missing or do not fit."""
        from transformers import AutoModelForCausalLM

        weights = self._open(options)
        self._load(AutoModelForCausalLM, weights, options)
        self._forward = set(inspect.signature(self.model.forward).parameters)
        self.end_tokens = end_tokens(self.model, self.tokenizer)
        plain_generation(self.model, self.end_tokens)
        cache = text_prefix_cache(self.model, self.tokenizer, self.device, self.format)
        if cache is not None:
            self._use_prefix_cache(cache)

    def _open(self, options: RemoteCodeOptions) -> Weights:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = name = options.name
        weights = weights_of(options)
        with loading_errors(name, weights):
            self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(weights.source, **weights.where)
        self.format = own_prompt(text_format(self.tokenizer), options.prompt)
        prepare_tokenizer(self.tokenizer, name, weights.source)
        self.config = read_config(AutoModelForCausalLM, name, weights)
        return weights

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        if task_name(task) == "caption" or any(e.image for e in (*demonstrations, query)):
            raise ConfigError(
                f"model {self.name} reads text only, and this {task_name(task)} data has images",
                "choose a vision-language model, such as --model idefics-9b",
            )
        return self.format.prompt(task, demonstrations, query)

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        return text_lengths(self.tokenizer, prompts)

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], batch_size: int, features: Features = None) -> list[TargetScore]:
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=text_limit(self.model.config))

        def compute(batch: Sequence[int]) -> list[TargetScore]:
            chosen = [tokens[i] for i in batch]
            inputs, offsets = self._inputs(chosen, self.padding_side)
            spans = [(o + t.target_start, o + len(t.ids)) for t, o in zip(chosen, offsets, strict=True)]
            return forward_scores(self.model, inputs, spans)

        return in_batches(batches_by_length([len(t.ids) for t in tokens], batch_size), compute)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], options: GenerationOptions, batch_size: int, features: Features = None
    ) -> list[str]:
        limit = text_limit(self.model.config, options.max_new_tokens)
        tokens = tokenize(self.tokenizer, prompts, with_target=False, limit=limit)

        def compute(batch: Sequence[int]) -> list[str]:
            search = beam_options(self.tokenizer.pad_token_id, options, [prompts[i].draw for i in batch])
            inputs, _ = self._inputs([tokens[i] for i in batch], "left")
            inputs.pop("position_ids", None)  # generate() counts them itself, from the mask
            output = self.model.generate(**inputs, **search)
            return decoded(self.tokenizer, output[:, inputs["input_ids"].shape[1] :])

        return in_batches(batches_by_length([len(t.ids) for t in tokens], batch_size), compute)

    def answer_batch(self, prompts: Sequence[Prompt], features: Features) -> AnswerBatch:
        """See SupportsDecoderHooks."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=text_limit(self.model.config))
        inputs, _ = self._inputs(tokens, "right")
        return answers_at(inputs, [(t.target_start, len(t.ids)) for t in tokens])

    def _inputs(self, tokens: Sequence[TokenizedPrompt], side: str) -> tuple[dict[str, torch.Tensor], list[int]]:
        """(padded inputs [B, T], the column in which each prompt begins)."""
        rows = padded_rows([t.ids for t in tokens], int(self.tokenizer.pad_token_id), side)
        inputs = {"input_ids": rows.ids.to(self.device), "attention_mask": rows.mask.to(self.device)}
        if "position_ids" in self._forward:
            inputs["position_ids"] = rows.positions.to(self.device)
        return inputs, rows.starts


def text_format(tokenizer: PreTrainedTokenizerBase) -> PromptFormat:
    """TEXT with the tokenizer's own tokens: BOS in front if the tokenizer adds one, EOS at the end unless it is the pad token
    (a tokenizer without a pad token pads with EOS)."""
    bos, eos, pad = tokenizer.bos_token or "", tokenizer.eos_token or "", tokenizer.pad_token
    begins = bool(bos) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    special = sorted({str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special})
    end = eos if pad is not None and pad != eos else ""
    return replace(TEXT, start=bos if begins else "", end=end, reserved=tuple(t for t in special if t.strip()))
