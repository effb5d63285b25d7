"""From logits to the scores of targets, for every adapter."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from icltool.components.models.shared.sampling import SeededSampling
from icltool.components.models.shared.tokens import predicting
from icltool.contracts import GenerationOptions, TargetScore
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from icltool.components.models.shared.loading import Network


def target_scores(logits: torch.Tensor, targets: Sequence[Sequence[int]]) -> list[TargetScore]:
    """One TargetScore per prompt of a batch.

    `logits` [N, vocabulary] predict the target tokens of all prompts, one prompt after the other; `targets` holds each
    prompt's target tokens, N in all. The log-softmax is computed in float32, the sum in float64.
    """
    flat = torch.tensor([token for target in targets for token in target], device=logits.device)
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    owners = [k for k, target in enumerate(targets) for _ in target]
    sums = torch.zeros(len(targets), dtype=torch.float64, device=logits.device)
    picked = log_probs.gather(1, flat[:, None])[:, 0].double()
    sums.index_add_(0, torch.tensor(owners, device=logits.device), picked)
    return [TargetScore(total, len(target)) for total, target in zip(sums.tolist(), targets, strict=True)]


def forward_scores(model: Network, inputs: Mapping[str, Any], spans: Sequence[tuple[int, int]]) -> list[TargetScore]:
    """Scores of targets by one forward pass of a transformers model over a padded batch.

    `spans` are each row's target as positions (first, end) in `inputs["input_ids"]`. Logits are computed from the first
    column on that predicts some row's target if the model supports it (`logits_to_keep`), else everywhere.
    """
    ids = inputs["input_ids"].tolist()
    skipped, options = 0, {}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        skipped = min(first for first, _ in spans) - 1
        options["logits_to_keep"] = len(ids[0]) - skipped
    logits = model(**inputs, **options, use_cache=False).logits
    rows, columns = predicting(spans)
    shifted = [column - skipped for column in columns]
    return target_scores(logits[rows, shifted], [ids[row][first:end] for row, (first, end) in enumerate(spans)])


def end_tokens(model: Network, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer: those of the checkpoint's generation configuration, and the tokenizer's EOS. Raises ConfigError
    for a value that is not an id."""
    own = {
        name: value if isinstance(value, (list, tuple)) else [value]
        for name in ("bos_token_id", "pad_token_id", "decoder_start_token_id", "eos_token_id")
        if (value := getattr(model.generation_config, name, None)) is not None
    }
    for name, tokens in own.items():
        if any(type(token) is not int or abs(token) >= 1 << 31 for token in tokens):
            raise ConfigError(
                f"the model's generation_config.json has {name} = {tokens!r:.80}, which is not a token id",
                "the file is damaged: download it again",
            )
    ends = {*own.get("eos_token_id", ()), tokenizer.eos_token_id}
    return sorted(int(token) for token in ends if token is not None)


def beam_options(pad: int, options: GenerationOptions, draws: Sequence[int] = ()) -> dict[str, Any]:
    """The search options of transformers' `generate`; nothing is left to the defaults in the model's own files.

    `draws` are `Prompt.draw` of the batch's prompts, by which an answer is sampled if `options` ask for that.

    Its repetition penalty also counts the tokens of the prompt if it receives the prompt's ids; if it receives embeddings
    alone, only those of the answer.
    """
    search: dict[str, Any] = {
        "max_new_tokens": options.max_new_tokens,
        "num_beams": options.num_beams,
        "do_sample": False,
        "pad_token_id": pad,
    }
    if options.temperature > 0:
        from transformers import LogitsProcessorList

        search["logits_processor"] = LogitsProcessorList([SeededSampling(options, draws)])
    if options.num_beams > 1:
        search["length_penalty"] = options.length_penalty
    if options.min_new_tokens > 0:
        search["min_new_tokens"] = options.min_new_tokens
    if options.repetition_penalty != 1.0:
        search["repetition_penalty"] = options.repetition_penalty
    if options.no_repeat_ngram > 0:
        search["no_repeat_ngram_size"] = options.no_repeat_ngram
    return search


def decoded(tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor) -> list[str]:
    """The texts of generated tokens, int64 [B, T], without special tokens."""
    return list(tokenizer.batch_decode(ids, skip_special_tokens=True))


def plain_generation(model: Network, end_tokens: Sequence[int]) -> None:
    """Gives the model a generation configuration without sampling, penalties or other defaults of its checkpoint."""
    from transformers import GenerationConfig

    bos = getattr(model.generation_config, "bos_token_id", None)
    model.generation_config = GenerationConfig(bos_token_id=bos, eos_token_id=list(end_tokens) or None)
