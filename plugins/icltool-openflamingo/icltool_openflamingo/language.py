"""Language models and their tokenizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from icltool import ConfigError, Weights, as_in_file
from icltool_openflamingo.mpt import MODEL_TYPES, RENAMED, mpt_class_and_config
from icltool_openflamingo.prompts import END_OF_CHUNK, IMAGE, PAD

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_language_model(weights: Weights, dtype: torch.dtype, attention: str | None) -> PreTrainedModel:
    """A causal language model in transformers' own class; code of the repository is never run.

    `attention` None lets transformers choose what the model supports; MPT has eager attention only. Raises ConfigError
    when the folder does not hold what its configuration says, or transformers has no class for it.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig

    where = weights.source
    model: Any
    info: Any
    try:
        raw, _ = PretrainedConfig.get_config_dict(where, local_files_only=weights.local_only)
        options: dict[str, Any] = {"dtype": dtype, "local_files_only": weights.local_only, "output_loading_info": True}
        plain: Any = GenerationConfig  # no sampling or penalty out of the folder's own file
        options["generation_config"] = plain()
        if raw.get("model_type") in MODEL_TYPES:
            if attention not in (None, "eager"):
                raise ConfigError(f"attention {attention!r}: MPT has eager attention only", "leave it unset")
            kind: Any
            kind, config = mpt_class_and_config(raw, where)
            model, info = kind.from_pretrained(where, config=config, key_mapping=RENAMED, **options)
        else:
            if attention is not None:
                options["attn_implementation"] = attention
            kind = AutoModelForCausalLM
            model, info = kind.from_pretrained(where, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"the language model in {where} cannot be loaded: {lines[0]}", "check the folder, or download it again"
        ) from error
    for kind_of_fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        faults = sorted(str(key) for key in info.get(kind_of_fault) or ())
        faults = [key for key in faults if not key.endswith("rotary_emb.inv_freq")]
        if faults:
            raise ConfigError(
                f"the language model in {where} does not fit its configuration: {kind_of_fault} {', '.join(faults[:3])}"
                + (f" and {len(faults) - 3} more" if len(faults) > 3 else "")
            )
    return model


def load_tokenizer(weights: Weights, rows: int) -> PreTrainedTokenizerBase:
    """The language model's tokenizer with `<|endofchunk|>`, `<image>` and, where the base has no pad token, `<PAD>`.

    They are numbered in this order behind the base's own tokens, as in the models' training. `rows` is how many token
    embeddings the checkpoint holds: it decides whether `<PAD>` was added. ConfigError when the two do not fit.
    """
    from transformers import AddedToken, AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(weights.source, **weights.where)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ConfigError(f"the tokenizer in {weights.source} cannot be loaded: {first_line}") from error
    as_in_file(tokenizer, weights.source, weights.source)
    known = tokenizer.get_vocab()
    missing = [token for token in (END_OF_CHUNK, IMAGE) if token not in known]
    if len(tokenizer) + len(missing) < rows and PAD not in known:
        missing.append(PAD)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing], special_tokens=True)
    if PAD in tokenizer.get_vocab():
        tokenizer.pad_token = PAD
    if len(tokenizer) != rows:
        raise ConfigError(
            f"the tokenizer in {weights.source} has {len(tokenizer)} tokens, the checkpoint embeddings for {rows}",
            "this is not the language model that the checkpoint was trained with",
        )
    if not tokenizer.is_fast:
        raise ConfigError(
            f"the tokenizer in {weights.source} gives no character offsets", "its tokenizer.json is missing"
        )
    return tokenizer


def resize_embeddings(model: PreTrainedModel, rows: int) -> None:
    """Gives the model `rows` token embeddings.

    New rows of an output layer of its own (LLaMA) are the mean of its old rows: neither trained nor in the published
    checkpoints, they were left to chance in the models' first code. New input rows come from the checkpoint.
    """
    head = model.get_output_embeddings()
    tied = head.weight is model.get_input_embeddings().weight
    before = head.weight.shape[0]
    mean = head.weight.detach().float().mean(0)
    model.resize_token_embeddings(rows, mean_resizing=False)
    if not tied and rows > before:
        with torch.no_grad():
            model.get_output_embeddings().weight[before:] = mean.to(head.weight.dtype)
