"""The configuration of OFA (Wang et al. 2022, arXiv:2202.03052), under the names of the public config.json files."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from icltool.errors import ConfigError

_BLOCKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

# What would need another network than this one: the name of the option, and the only value that is supported.
_FIXED = {
    "use_ofasys": False,
    "share_attn_bias": False,
    "use_gamma_feature": False,
    "entangle_position_embedding": False,
    "interpolate_position": False,
    "use_image_feature": True,
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "activation_function": "gelu",
}

# d_model, encoder layers, decoder layers, heads, ResNet (arXiv:2202.03052, table 1).
_SIZES = {
    "tiny": (256, 4, 4, 4, "resnet50"),
    "medium": (512, 4, 4, 8, "resnet101"),
    "base": (768, 6, 6, 12, "resnet101"),
    "large": (1024, 12, 12, 16, "resnet152"),
    "huge": (1280, 24, 12, 16, "resnet152"),
}

SIZES = tuple(_SIZES)
"""The names that `size_config` takes, from the smallest to the largest."""


class OFAConfig(PretrainedConfig):
    """The configuration of an OFA network; the defaults are those of the size `medium`.

    `vocab_size` counts the byte-pair tokens, 8192 image codes and 1000 location bins. `token_bucket_size` and
    `image_bucket_size` set the tables of relative positions: 2 b - 1 buckets for distances in the text, a square of
    b x b patches (16 b pixels a side at most) for images. `code_image_size` only shapes image generation, which icltool
    does not use. The three drop-path rates are the last layer's (stochastic depth, arXiv:1603.09382); the layers before it have
    linearly less.

    Raises
    ------
    ConfigError
        An option asks for another network (`use_ofasys`, `share_attn_bias`, `use_gamma_feature`, …), or a value is out of
        range; the message names it.
    """

    model_type = "ofa"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache", "past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {
        "num_attention_heads": "encoder_attention_heads",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "initializer_range": "init_std",
    }

    vocab_size: int = 59457
    max_position_embeddings: int = 1024
    d_model: int = 512
    encoder_layers: int = 4
    encoder_ffn_dim: int = 2048
    encoder_attention_heads: int = 8
    decoder_layers: int = 4
    decoder_ffn_dim: int = 2048
    decoder_attention_heads: int = 8
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    encoder_drop_path_rate: float = 0.0
    decoder_drop_path_rate: float = 0.0
    resnet_drop_path_rate: float = 0.0
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False
    normformer: bool = True
    attn_scale_factor: float = 2.0
    resnet_type: str = "resnet101"
    token_bucket_size: int = 256
    image_bucket_size: int = 42
    code_image_size: int = 128
    layernorm_embedding: bool = True
    patch_layernorm_embedding: bool = True
    code_layernorm_embedding: bool = True
    add_type_embedding: bool = True
    entangle_position_embedding: bool = False
    share_decoder_input_output_embed: bool = True
    encoder_normalize_before: bool = True
    decoder_normalize_before: bool = True
    interpolate_position: bool = False
    use_image_feature: bool = True
    use_ofasys: bool = False
    share_attn_bias: bool = False
    use_gamma_feature: bool = False
    use_cache: bool = True
    is_encoder_decoder: bool = True
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2
    decoder_start_token_id: int = 0
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # The encoder's and the decoder's embeddings are one; share_decoder_input_output_embed decides on the output.
        self.tie_word_embeddings = True
        for name, only in _FIXED.items():
            if getattr(self, name, only) not in (only, None):
                raise ConfigError(
                    f"the OFA configuration has {name} = {getattr(self, name)!r}, and only {only!r} is supported",
                    "choose another checkpoint: those named OFA-Sys/ofa-tiny to ofa-huge are of this kind",
                )
        if self.resnet_type not in _BLOCKS:
            raise ConfigError(
                f"the OFA configuration has resnet_type = {self.resnet_type!r}", f"it is one of {', '.join(_BLOCKS)}"
            )
        for heads in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % getattr(self, heads):
                raise ConfigError(
                    f"the OFA configuration has d_model = {self.d_model} and {heads} = {getattr(self, heads)}",
                    "the width must be a multiple of the number of heads",
                )


def size_config(size: str, **changes: Any) -> OFAConfig:
    """The configuration of a published size, `tiny`, `medium`, `base`, `large` or `huge`, with any field changed.

    Raises
    ------
    ConfigError
        There is no such size, or a change is refused.
    """
    if size not in _SIZES:
        raise ConfigError(f"there is no OFA of size {size!r}", f"the sizes are {', '.join(SIZES)}")
    width, encoder_layers, decoder_layers, heads, resnet = _SIZES[size]
    fields: dict[str, Any] = {
        "d_model": width,
        "encoder_layers": encoder_layers,
        "decoder_layers": decoder_layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "resnet_type": resnet,
    }
    return OFAConfig(**(fields | changes))
