"""Text-only causal language models (transformers' AutoModelForCausalLM), for text tasks such as classification."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from icltool.components.models.shared.decoder_hooks import HookedDecoder, answers_at
from icltool.components.models.shared.loading import LoadOptions, load_model, loading_errors
from icltool.components.models.shared.processed import prepare_tokenizer, text_limit
from icltool.components.models.shared.prompt_format import TEXT, PromptFormat
from icltool.components.models.shared.scoring import beam_options, end_tokens, forward_scores, plain_generation
from icltool.components.models.shared.text_continuing import text_continuation
from icltool.components.models.shared.tokens import TokenizedPrompt, batches_by_length, text_lengths, tokenize
from icltool.components.models.shared.weights import find_weights, fingerprint
from icltool.contracts import AnswerBatch, Example, GenerationOptions, Prompt, TargetScore, Task, task_name
from icltool.errors import ConfigError


class TextModel(HookedDecoder):
    """The adapter. It reads no images: an example with one is refused.

    `padding_side` is where prompts that are scored are filled up: results do not depend on it. Positions are always
    those of the unpadded prompt. Models of the architectures in CONTINUED go on from keys and values computed before
    (SupportsPrefixCache, ContinuesFromPrefix).
    """

    padding_side = "right"

    def __init__(
        self,
        name: str = "text-llm",
        hub_id: str | None = None,
        path: str | None = None,
        device: str = "auto",
        device_map: str | None = None,
        dtype: str = "auto",
        attention: str | None = None,
        quantization: str | None = None,
        compile: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        """Loads tokenizer and weights; see LoadOptions for the options. `trust_remote_code` runs code of the repository.

        Raises ConfigError when weights are missing or do not fit, or an option is unknown.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = name
        weights = replace(find_weights(name, None, hub_id, path), trusted=trust_remote_code)
        options = LoadOptions(device, device_map, dtype, attention, quantization, compile)
        with loading_errors(name, weights):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(weights.source, **weights.where)
        self.format = text_format(self.tokenizer)
        prepare_tokenizer(self.tokenizer, name, weights.source)
        loaded = load_model(AutoModelForCausalLM, name, weights, options)
        self.model, self.device, self.precision = loaded.model, loaded.device, loaded.precision
        self.source = weights.source
        self._forward = set(inspect.signature(self.model.forward).parameters)
        self.end_tokens = end_tokens(self.model, self.tokenizer)
        plain_generation(self.model, self.end_tokens)
        after = text_continuation(self.model, self.tokenizer, self.device, self.format)
        if after is not None:
            self.prompt_tokens, self.extend, self.generate_after = (
                after.prompt_tokens,
                after.extend,
                after.generate_after,
            )

    def fingerprint(self) -> str:
        return fingerprint(self.source, self.precision, repr(self.format))

    def prompt(self, task: Task | str, demonstrations: Sequence[Example], query: Example) -> Prompt:
        if task_name(task) == "caption" or any(e.image for e in (*demonstrations, query)):
            raise ConfigError(
                f"model {self.name} reads text only, and this {task_name(task)} data has images",
                "choose a vision-language model, such as --model idefics-9b",
            )
        return self.format.prompt(task, demonstrations, query)

    def clean(self, task: Task | str, text: str) -> str:
        return self.format.clean(task, text)

    def token_counts(self, prompts: Sequence[Prompt]) -> list[int]:
        return text_lengths(self.tokenizer, prompts)

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[Prompt], batch_size: int, features: Mapping[str, Any] | None = None
    ) -> list[TargetScore]:
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=text_limit(self.model.config))
        scores: list[TargetScore | None] = [None] * len(prompts)
        for batch in batches_by_length([len(t.ids) for t in tokens], batch_size):
            chosen = [tokens[i] for i in batch]
            inputs, offsets = self._inputs(chosen, self.padding_side)
            spans = [(o + t.target_start, o + len(t.ids)) for t, o in zip(chosen, offsets, strict=True)]
            found = forward_scores(self.model, inputs, spans)
            for i, score in zip(batch, found, strict=True):
                scores[i] = score
        return [s for s in scores if s is not None]

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        batch_size: int,
        features: Mapping[str, Any] | None = None,
    ) -> list[str]:
        limit = text_limit(self.model.config)
        limit = None if limit is None else limit - options.max_new_tokens
        tokens = tokenize(self.tokenizer, prompts, with_target=False, limit=limit)
        search = beam_options(self.tokenizer.pad_token_id, options)
        texts: list[str] = [""] * len(prompts)
        for batch in batches_by_length([len(t.ids) for t in tokens], batch_size):
            inputs, _ = self._inputs([tokens[i] for i in batch], "left")
            inputs.pop("position_ids", None)  # generate() counts them itself, from the mask
            output = self.model.generate(**inputs, **search)
            new = output[:, inputs["input_ids"].shape[1] :]
            for i, text in zip(batch, self.tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                texts[i] = text
        return texts

    def answer_batch(self, prompts: Sequence[Prompt], features: Mapping[str, Any] | None) -> AnswerBatch:
        """See SupportsDecoderHooks."""
        tokens = tokenize(self.tokenizer, prompts, with_target=True, limit=text_limit(self.model.config))
        inputs, _ = self._inputs(tokens, "right")
        return answers_at(inputs, [(t.target_start, len(t.ids)) for t in tokens])

    def _written(self) -> object:
        return self.format

    def _inputs(self, tokens: Sequence[TokenizedPrompt], side: str) -> tuple[dict[str, Any], list[int]]:
        """(padded inputs [B, T], where each prompt begins in its row)."""
        length = max(len(t.ids) for t in tokens)
        ids = torch.full((len(tokens), length), int(self.tokenizer.pad_token_id), dtype=torch.long)
        mask = torch.zeros_like(ids)
        offsets = [length - len(t.ids) if side == "left" else 0 for t in tokens]
        for row, (token, offset) in enumerate(zip(tokens, offsets, strict=True)):
            span = slice(offset, offset + len(token.ids))
            ids[row, span] = torch.tensor(token.ids)
            mask[row, span] = 1
        inputs = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        if "position_ids" in self._forward:
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0).to(self.device)
        return inputs, offsets


def text_format(tokenizer: Any) -> PromptFormat:
    """TEXT with the tokenizer's own tokens: BOS in front where it writes one, EOS at the end where it is not the pad token
    (a tokenizer without a pad token pads with EOS)."""
    bos, eos, pad = tokenizer.bos_token or "", tokenizer.eos_token or "", tokenizer.pad_token
    begins = bool(bos) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    special = sorted({str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special})
    end = eos if pad is not None and pad != eos else ""
    return replace(TEXT, start=bos if begins else "", end=end, reserved=tuple(t for t in special if t.strip()))
