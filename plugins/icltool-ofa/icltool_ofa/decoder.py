"""OFA's decoder for text, with a key-value cache. Image generation (codes) is not part of it, its weights are kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import EncoderDecoderCache

from icltool_ofa.config import OFAConfig
from icltool_ofa.encoder import OFAEncoderOutput, check_length, relative_tables
from icltool_ofa.layers import OFADecoderLayer
from icltool_ofa.positions import absolute_bias, image_buckets, relative_bias, token_buckets, token_distances

_IMAGE_GENERATION = (
    "embed_image_positions",
    "image_pos_ln",
    "code_layernorm_embedding",
    "image_rel_pos_table_list",
)


class OFADecoder(nn.Module):
    """A causal transformer that attends to the encoder's output; the network ties `embed_tokens` to the encoder's.

    The weights of image generation (`embed_image_positions`, `image_pos_ln`, `code_layernorm_embedding`,
    `image_rel_pos_table_list`) take no part in `forward`. They require no gradient, so that training on several
    devices does not wait for one.
    """

    token_rp_bucket: Tensor

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        width, heads = config.d_model, config.decoder_attention_heads
        self.config = config
        self.heads = heads
        self.embed_scale = math.sqrt(width) if config.scale_embedding else 1.0
        self.position_scale = (width / heads * config.attn_scale_factor) ** -0.5
        self.embed_tokens = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.layernorm_embedding = nn.LayerNorm(width) if config.layernorm_embedding else None
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.embed_image_positions = nn.Embedding(config.image_bucket_size**2 + 1, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.self_pos_q_linear = nn.Linear(width, width)
        self.self_pos_k_linear = nn.Linear(width, width)
        self.cross_pos_q_linear = nn.Linear(width, width)
        self.cross_pos_k_linear = nn.Linear(width, width)
        self.code_layernorm_embedding = nn.LayerNorm(width) if config.code_layernorm_embedding else None
        self.dropout = nn.Dropout(config.dropout)
        rates = torch.linspace(0, config.decoder_drop_path_rate, config.decoder_layers, device="cpu").tolist()
        self.layers = nn.ModuleList(OFADecoderLayer(config, rate, layer) for layer, rate in enumerate(rates))
        self.layer_norm = nn.LayerNorm(width)
        self.output_projection = nn.Linear(width, config.vocab_size, bias=False)
        self.token_rel_pos_table_list = relative_tables(config.decoder_layers, 2 * config.token_bucket_size - 1, heads)
        self.image_rel_pos_table_list = relative_tables(
            config.decoder_layers, image_buckets(config.image_bucket_size), heads
        )
        self.register_buffer("token_rp_bucket", token_buckets(config.token_bucket_size), persistent=False)
        self.freeze_image_generation()

    def freeze_image_generation(self) -> None:
        """Take the gradient from the weights that no text needs."""
        for name in _IMAGE_GENERATION:
            unused = getattr(self, name)
            if unused is not None:
                unused.requires_grad_(False)

    def forward(
        self,
        input_ids: Tensor,
        encoded: OFAEncoderOutput,
        attention_mask: Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> Tensor:
        """The logits float [B, Q, vocabulary] after each of the tokens int64 [B, Q].

        Parameters
        ----------
        input_ids : the tokens that follow those in the cache (all of them without one).
        encoded : what the encoder gave, expanded to the same batch.
        attention_mask : bool or int [B, cached + Q], false at padding; by default what is the padding token in
            `input_ids` is hidden, and nothing in the cache is.
        cache : extended in place.

        Raises
        ------
        DataError
            The text is longer than the position embeddings.
        """
        queries = input_ids.shape[1]
        past = 0 if cache is None else cache.get_seq_length()
        keys = past + queries
        check_length(keys, self.config.max_position_embeddings)
        x = self.embed_scale * self.embed_tokens(input_ids)
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        x = self.dropout(x)

        positions = self.pos_ln(self.embed_positions.weight[None, :keys])
        absolute, cross = self._biases(positions, queries, encoded)
        distances = token_distances(self.token_rp_bucket, queries, keys)
        mask = self._causal_mask(input_ids, attention_mask, past)
        cross_mask = None if encoded.attention_mask is None else encoded.attention_mask[:, None, None, :]
        for layer, table in zip(self.layers, self.token_rel_pos_table_list, strict=True):
            bias = absolute + relative_bias(table, distances)
            x = layer(x, encoded.last_hidden_state, bias, cross, mask, cross_mask, cache)
        return self.output_projection(self.layer_norm(x))

    def _biases(self, positions: Tensor, queries: int, encoded: OFAEncoderOutput) -> tuple[Tensor, Tensor]:
        """The absolute biases of the last `queries` positions against all, and against the encoder's."""
        assert encoded.position_embedding is not None
        last = positions[:, -queries:]
        own = absolute_bias(
            self.self_pos_q_linear, self.self_pos_k_linear, last, positions, self.heads, self.position_scale
        )
        # Each row has the same positions.
        source = encoded.position_embedding[:1]
        cross = absolute_bias(
            self.cross_pos_q_linear, self.cross_pos_k_linear, last, source, self.heads, self.position_scale
        )
        return own, cross

    def _causal_mask(self, input_ids: Tensor, attention_mask: Tensor | None, past: int) -> Tensor:
        """bool [1 or B, 1, Q, past + Q]: True where a token may attend."""
        queries = input_ids.shape[1]
        causal = torch.ones(queries, past + queries, dtype=torch.bool, device=input_ids.device).tril(past)
        if attention_mask is None:
            visible = input_ids.ne(self.config.pad_token_id)
            if past:
                visible = torch.cat([visible.new_ones(len(visible), past), visible], dim=1)
        else:
            visible = attention_mask.bool()
        return causal & visible[:, None, None, :]
