"""Attention with a position bias, and the encoder's and the decoder's layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth
from transformers import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from icltool_ofa.config import OFAConfig


class OFAAttention(nn.Module):
    """Scaled dot-product attention whose queries are scaled by (attn_scale_factor * head width) ** -0.5.

    The position bias brings a second term of the same size, which is why the usual scale is divided by its factor. Each
    head's output is multiplied by a learned scalar (`c_attn`; NormFormer, arXiv:2110.09456).
    """

    def __init__(self, config: OFAConfig, heads: int, layer: int = 0) -> None:
        super().__init__()
        width = config.d_model
        self.heads, self.layer, self.dropout = heads, layer, config.attention_dropout
        self.scale = (width // heads * config.attn_scale_factor) ** -0.5
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.c_attn = nn.Parameter(torch.ones(heads))

    def forward(
        self,
        hidden: Tensor,
        bias: Tensor,
        mask: Tensor | None = None,
        encoded: Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> Tensor:
        """Attend from `hidden` to itself and what the cache holds of it or, where `encoded` is given, to that.

        Parameters
        ----------
        hidden : float [B, Q, d].
        bias : float [1, heads, Q, K], added to the scores.
        mask : bool, broadcastable to [B, heads, Q, K]: True where attention may go; None for everywhere.
        encoded : float [B, K, d], the encoder's output.
        cache : keys and values of earlier calls, extended here.

        Returns
        -------
        float [B, Q, d].
        """
        query = self._split(self.q_proj(hidden))
        if encoded is None:
            key, value = self._split(self.k_proj(hidden)), self._split(self.v_proj(hidden))
            if cache is not None:
                key, value = cache.self_attention_cache.update(key, value, self.layer)
        else:
            key, value = self._cross(encoded, cache)
        bias = bias.to(query.dtype)
        if mask is not None:
            # Not -inf: a query that sees nothing must not become not-a-number.
            bias = bias.masked_fill(~mask, torch.finfo(query.dtype).min)
        dropout = self.dropout if self.training else 0.0
        output = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=dropout, scale=self.scale
        )
        output = output * self.c_attn.to(output.dtype)[:, None, None]
        return self.out_proj(output.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _cross(self, encoded: Tensor, cache: EncoderDecoderCache | None) -> tuple[Tensor, Tensor]:
        if cache is not None and cache.is_updated.get(self.layer):
            held = cache.cross_attention_cache.layers[self.layer]
            return held.keys, held.values
        key, value = self._split(self.k_proj(encoded)), self._split(self.v_proj(encoded))
        if cache is not None:
            key, value = cache.cross_attention_cache.update(key, value, self.layer)
            cache.is_updated[self.layer] = True
        return key, value


class _FeedForward(GradientCheckpointingLayer):
    """What both kinds of layer have: dropout, stochastic depth, norms and the feed-forward block."""

    def __init__(self, config: OFAConfig, inner: int, drop_path: float) -> None:
        super().__init__()
        width = config.d_model
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.drop_path = StochasticDepth(drop_path, "row")
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.ffn_layer_norm = nn.LayerNorm(inner) if config.normformer else None
        self.final_layer_norm = nn.LayerNorm(width)

    def residual(self, x: Tensor, output: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        if norm is not None:
            output = norm(output)
        return x + self.drop_path(self.dropout(output))

    def feed_forward(self, x: Tensor) -> Tensor:
        inner = self.activation_dropout(functional.gelu(self.fc1(self.final_layer_norm(x))))
        if self.ffn_layer_norm is not None:
            inner = self.ffn_layer_norm(inner)
        x = self.residual(x, self.fc2(inner))
        if x.dtype == torch.float16:
            # Half precision overflows in the large sizes; infinities would be not-a-number one norm later.
            limit = torch.finfo(x.dtype).max - 1000
            x = x.clamp(-limit, limit)
        return x


def _mid_norm(config: OFAConfig) -> nn.LayerNorm | None:
    return nn.LayerNorm(config.d_model) if config.normformer else None


class OFAEncoderLayer(_FeedForward):
    """Self-attention and feed-forward, each behind a layer norm, with a second norm after it (NormFormer)."""

    def __init__(self, config: OFAConfig, drop_path: float) -> None:
        super().__init__(config, config.encoder_ffn_dim, drop_path)
        self.self_attn = OFAAttention(config, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.self_attn_mid_layer_norm = _mid_norm(config)

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """float [B, S, d] of the same, with the bias float [1, heads, S, S] and the mask bool [B, 1, 1, S]."""
        output = self.self_attn(self.self_attn_layer_norm(x), bias, mask)
        x = self.residual(x, output, self.self_attn_mid_layer_norm)
        return self.feed_forward(x)


class OFADecoderLayer(_FeedForward):
    """As the encoder's layer, with attention to the encoder's output in between."""

    def __init__(self, config: OFAConfig, drop_path: float, layer: int) -> None:
        super().__init__(config, config.decoder_ffn_dim, drop_path)
        self.self_attn = OFAAttention(config, config.decoder_attention_heads, layer)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.self_attn_mid_layer_norm = _mid_norm(config)
        self.cross_attn = OFAAttention(config, config.decoder_attention_heads, layer)
        self.cross_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.cross_attn_mid_layer_norm = _mid_norm(config)

    def forward(
        self,
        x: Tensor,
        encoded: Tensor,
        self_bias: Tensor,
        cross_bias: Tensor,
        self_mask: Tensor | None,
        cross_mask: Tensor | None,
        cache: EncoderDecoderCache | None = None,
    ) -> Tensor:
        """float [B, Q, d] of the same, with biases float [1, heads, Q, K] and [1, heads, Q, S]."""
        output = self.self_attn(self.self_attn_layer_norm(x), self_bias, self_mask, cache=cache)
        x = self.residual(x, output, self.self_attn_mid_layer_norm)
        output = self.cross_attn(self.cross_attn_layer_norm(x), cross_bias, cross_mask, encoded, cache)
        x = self.residual(x, output, self.cross_attn_mid_layer_norm)
        return self.feed_forward(x)
