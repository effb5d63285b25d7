"""The configuration: sizes as published, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from icltool_ofa.config import SIZES, OFAConfig, size_config
from icltool_ofa.network import OFAForConditionalGeneration

from icltool.errors import ConfigError

PUBLISHED = {"tiny": 33.5e6, "medium": 92.9e6, "base": 182e6, "large": 473e6, "huge": 930e6}


@pytest.mark.parametrize("size", SIZES)
def test_each_size_has_the_published_number_of_parameters(size: str) -> None:
    with torch.device("meta"):
        network = OFAForConditionalGeneration(size_config(size))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == pytest.approx(PUBLISHED[size], rel=2e-3)


def test_a_size_can_be_changed() -> None:
    config = size_config("base", dropout=0.0, encoder_drop_path_rate=0.1)
    assert (config.d_model, config.encoder_ffn_dim, config.resnet_type) == (768, 3072, "resnet101")
    assert (config.dropout, config.encoder_drop_path_rate, config.vocab_size) == (0.0, 0.1, 59457)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_ofasys", True),
        ("share_attn_bias", True),
        ("use_gamma_feature", True),
        ("entangle_position_embedding", True),
        ("encoder_normalize_before", False),
        ("activation_function", "relu"),
        ("resnet_type", "vit_base"),
        ("encoder_attention_heads", 7),
    ],
)
def test_what_needs_another_network_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field) as caught:
        OFAConfig(**{field: value})
    assert "\n" not in str(caught.value)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="'giant'"):
        size_config("giant")


def test_fields_that_are_not_known_are_kept() -> None:
    config = OFAConfig(use_gamma_feature=False, stem_conv="no", forced_eos_token_id=2, torch_dtype="float32")
    assert OFAConfig.from_dict(config.to_dict()).stem_conv == "no"
