"""MPT language models in transformers' own class, so that no code out of a model repository is run.

Two generations are read. `mpt` (MPT-7B): key names and configuration are those of `MptForCausalLM`. `mosaic_gpt`
(MPT-1B): the same arithmetic under older names (`ln_1`, `mlp.mlp_up`, `ln_f` …), with queries and keys that are layer
normalised over the model's whole width before they are split into heads, which transformers' class does not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import MptConfig, MptForCausalLM

from icltool import ConfigError

MODEL_TYPES = ("mpt", "mosaic_gpt")

#: Patterns of older names, and the present names.
RENAMED: dict[str, str] = {
    r"\.ln_1\.": ".norm_1.",
    r"\.ln_2\.": ".norm_2.",
    r"transformer\.ln_f\.": "transformer.norm_f.",
    r"\.mlp\.mlp_up\.": ".ffn.up_proj.",
    r"\.mlp\.mlp_down\.": ".ffn.down_proj.",
    r"\.attn\.q_ln\.": ".attn.Wqkv.q_ln.",
    r"\.attn\.k_ln\.": ".attn.Wqkv.k_ln.",
}


class NormedProjection(nn.Linear):
    """x -> (LN(Q x), LN(K x), V x): the fused projection, its queries and keys layer normalised (without bias)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__(width, 3 * width, bias=False)
        self.q_ln = nn.LayerNorm(width, eps=epsilon, bias=False)
        self.k_ln = nn.LayerNorm(width, eps=epsilon, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, width] to [B, T, 3 * width]."""
        query, key, value = super().forward(x).chunk(3, dim=-1)
        return torch.cat([self.q_ln(query), self.k_ln(key), value], dim=-1)


class NormedMptForCausalLM(MptForCausalLM):  # type: ignore[no-untyped-call]
    """MPT whose queries and keys are layer normalised (`qk_ln`)."""

    def __init__(self, config: MptConfig) -> None:
        super().__init__(config)
        blocks: Any = self.transformer.blocks
        for block in blocks:
            block.attn.Wqkv = NormedProjection(config.hidden_size, config.layer_norm_epsilon)


def mpt_class_and_config(raw: Mapping[str, Any], where: str) -> tuple[type[MptForCausalLM], MptConfig]:
    """The class and configuration for a config.json of type `mpt` or `mosaic_gpt`.

    Raises ConfigError for a setting that transformers' class passes over in silence.
    """
    older = raw["model_type"] == "mosaic_gpt"
    attention = raw if older else raw.get("attn_config") or {}
    normed = bool(attention.get("attn_qk_ln" if older else "qk_ln", False))
    clip = attention.get("attn_clip_qkv" if older else "clip_qkv")
    ratio = raw.get("mlp_ratio" if older else "expansion_ratio", 4)
    ignored = {
        "alibi": (attention.get("alibi", not older), True),
        "alibi_bias_max": (attention.get("alibi_bias_max", 8), 8),
        "prefix_lm": (attention.get("prefix_lm", False), False),
        "attn_type": (attention.get("attn_type", "multihead_attention"), "multihead_attention"),
        "no_bias": (raw.get("no_bias", True), True),
        "logit_scale": (raw.get("logit_scale"), None),
        "the feed-forward ratio": (ratio, 4),
        "qk_ln together with clip_qkv": (normed and bool(clip), False),
    }
    for setting, (value, known) in ignored.items():
        if value != known:
            raise ConfigError(f"{where}: {setting} is {value!r}, which transformers' MPT does not support")
    sizes = {key: raw[key] for key in ("d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size")}
    config = MptConfig(
        **sizes,
        layer_norm_epsilon=raw.get("layer_norm_epsilon", 1e-5),
        attn_config={"qk_ln": normed, "clip_qkv": clip, "softmax_scale": attention.get("softmax_scale")},
    )
    return (NormedMptForCausalLM if normed else MptForCausalLM), config
