"""Every architecture whose prompts are computed in parts gives what whole prompts give; the others are computed whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.components.models.shared.options import RemoteCodeOptions
from icltool.components.models.shared.text_prefix_cache import WITH_PREFIX_CACHE
from icltool.components.models.text.text import TextModel
from icltool.contracts import Example, GeneratesFromPrefix, GenerationOptions, SupportsPrefixCache
from icltool.errors import DataError
from icltool.testing.models import mixed_prompts
from icltool.testing.prefixes import check_prefixes
from tests.components.models import tiny
from tests.suites import apart

#: gpt2 and llama have the whole suite.
OTHERS = WITH_PREFIX_CACHE - {"gpt2", "llama"}

Folder = Callable[[Callable[[Path], str]], str]
LABELS = ("red bar", "green block", "blue frame", "yellow bar")
EXAMPLES = [
    Example(i, "", i, f"the {'short ' * (3 * i % 7)}question {i}", LABELS[i % 4], (LABELS[i % 4],)) for i in range(8)
]
SIZES = {**tiny.LLAMA, "head_dim": 8}
#: What a tiny model of each architecture has beside SIZES. A window of 12 tokens is shorter than most prompts.
CHANGES: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window": 12, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": {"hidden_act": "gelu"},
    "mistral": {"sliding_window": 12},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16, "init_std": 0.3},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {"sliding_window": 12},
    "qwen2": {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1},
    "stablelm": {"partial_rotary_factor": 0.5},
}


def loaded(family: str, folder: Path, **changes: Any) -> TextModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    tokenizer = tiny.trained_tokenizer({"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<pad>"})
    pad, bos, eos = tiny.ids_of(tokenizer, "<pad>", "<s>", "</s>")
    config = AutoConfig.for_model(
        family, **{**SIZES, **CHANGES.get(family, {}), **changes}, vocab_size=len(tokenizer),
        pad_token_id=pad, bos_token_id=bos, eos_token_id=eos,
    )  # fmt: skip
    maker: Any = AutoModelForCausalLM
    return TextModel(
        RemoteCodeOptions(name=family, path=tiny.save(folder, maker.from_config(config), tokenizer), device="cpu")
    )


@pytest.mark.parametrize("family", apart("external", OTHERS - {"gemma2", "mixtral", "qwen2"}, sorted(OTHERS)))
def test_prompts_in_parts_equal_whole_prompts(family: str, tmp_path: Path) -> None:
    model = loaded(family, tmp_path)
    assert isinstance(model, GeneratesFromPrefix)
    check_prefixes(model, mixed_prompts(model, EXAMPLES, "classification"), None, 1e-4)


@pytest.mark.parametrize("family", ["bloom", "mpt", "mamba"])
def test_other_architectures_are_computed_whole(family: str, tmp_path: Path) -> None:
    changes = {"mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2}, "bloom": {"n_head": 4}, "mamba": {"state_size": 4}}
    assert not isinstance(loaded(family, tmp_path, **changes[family]), SupportsPrefixCache)


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_frequencies_that_depend_on_the_length_are_not_reused(rope: str, tmp_path: Path) -> None:
    numbers = {"rope_type": rope, "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 16}
    if rope == "longrope":
        numbers |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    assert not isinstance(loaded("llama", tmp_path, rope_parameters=numbers), SupportsPrefixCache)


def test_what_belongs_to_the_query_begins_after_the_last_demonstration(folder_of: Folder) -> None:
    model = TextModel(RemoteCodeOptions(path=folder_of(tiny.llama), device="cpu"))
    prompts = [model.prompt("classification", EXAMPLES[1 : 1 + k], EXAMPLES[0]) for k in (0, 2)]
    for prompt, target in zip(prompts, (True, False), strict=True):
        (tokens,) = model.prompt_tokens([prompt], target)
        shared = model.tokenizer.decode(tokens.ids[: tokens.shared_end])
        assert shared == prompt.text[: prompt.text.rindex("Input:")]
        assert model.tokenizer.decode(tokens.ids) == prompt.text + (prompt.target if target else "")


def test_an_answer_must_fit_behind_the_prompt(folder_of: Folder) -> None:
    model = TextModel(RemoteCodeOptions(name="gpt2", path=folder_of(tiny.gpt2), device="cpu"))
    prompt = model.prompt("classification", [], replace(EXAMPLES[0], text="x " * 240))
    tokens = model.prompt_tokens([prompt], False)
    past = [(torch.zeros(1, 4, len(tokens[0].ids) - 1, 8),) * 2] * 2
    with pytest.raises(DataError, match="the model reads at most 12"):
        model.generate_from_prefix(tokens, past, GenerationOptions(500), None)
