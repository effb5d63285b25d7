"""OFA's encoder: image patches and text in one sequence, [image; text]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from icltool.errors import ConfigError, DataError
from icltool_ofa.config import OFAConfig
from icltool_ofa.layers import OFAEncoderLayer
from icltool_ofa.positions import (
    absolute_bias,
    image_buckets,
    image_distances,
    image_positions,
    relative_bias,
    token_buckets,
    token_distances,
)
from icltool_ofa.resnet import CHANNELS, STRIDE, ResNet


@dataclass
class OFAEncoderOutput(ModelOutput):
    """What the decoder needs of the encoder; every tensor has the batch first, so that it can be expanded over beams.

    Attributes
    ----------
    last_hidden_state : float [B, S, d], S = image positions + tokens.
    position_embedding : float [B, S, d]: the normalised embeddings of the positions, the same in each row.
    attention_mask : bool [B, S], True where the decoder may attend; None where that is everywhere.
    """

    last_hidden_state: Tensor | None = None
    position_embedding: Tensor | None = None
    attention_mask: Tensor | None = None

    def rows(self, index: Tensor) -> OFAEncoderOutput:
        """Rows int64 [N] of the batch, in that order and as often as they are named: several texts for one image."""
        return OFAEncoderOutput(**{name: tensor[index] for name, tensor in self.items()})


@dataclass
class _Image:
    """The image's part of the sequence: embeddings [B, P, d], normalised positions [1, P, d], distance buckets [P, P]."""

    embeddings: Tensor
    positions: Tensor
    distances: Tensor


class OFAEncoder(nn.Module):
    """A ResNet for the image and a transformer over its positions and the tokens."""

    main_input_name = "input_ids"
    token_rp_bucket: Tensor

    def __init__(self, config: OFAConfig) -> None:
        super().__init__()
        width, heads = config.d_model, config.encoder_attention_heads
        self.config = config
        self.heads = heads
        self.embed_scale = math.sqrt(width) if config.scale_embedding else 1.0
        self.position_scale = (width / heads * config.attn_scale_factor) ** -0.5
        self.embed_tokens = nn.Embedding(config.vocab_size, width, config.pad_token_id)
        self.type_embedding = nn.Embedding(2, width) if config.add_type_embedding else None
        self.embed_images = ResNet(config.resnet_type, config.resnet_drop_path_rate)
        self.image_proj = nn.Linear(CHANNELS, width)
        self.layernorm_embedding = nn.LayerNorm(width) if config.layernorm_embedding else None
        self.patch_layernorm_embedding = nn.LayerNorm(width) if config.patch_layernorm_embedding else None
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, width)
        self.embed_image_positions = nn.Embedding(config.image_bucket_size**2 + 1, width)
        self.pos_ln = nn.LayerNorm(width)
        self.image_pos_ln = nn.LayerNorm(width)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        rates = torch.linspace(0, config.encoder_drop_path_rate, config.encoder_layers, device="cpu").tolist()
        self.layers = nn.ModuleList(OFAEncoderLayer(config, rate) for rate in rates)
        self.layer_norm = nn.LayerNorm(width)
        self.token_rel_pos_table_list = relative_tables(config.encoder_layers, 2 * config.token_bucket_size - 1, heads)
        self.image_rel_pos_table_list = relative_tables(
            config.encoder_layers, image_buckets(config.image_bucket_size), heads
        )
        self.register_buffer("token_rp_bucket", token_buckets(config.token_bucket_size), persistent=False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        patch_images: Tensor | None = None,
        patch_masks: Tensor | None = None,
    ) -> OFAEncoderOutput:
        """Encode a batch of texts, each with one image or none.

        Parameters
        ----------
        input_ids : int64 [B, T].
        attention_mask : bool or int [B, T], false at padding; by default all that is not the padding token counts.
        patch_images : float [B, 3, H, W], normalised; None for text alone.
        patch_masks : bool [B], False hides the image of a row (its pixels are then of no importance but to BatchNorm
            in training); by default every image is visible.

        Raises
        ------
        DataError
            The text is longer than the position embeddings.
        ConfigError
            The image is larger than the table of image positions.
        """
        batch, tokens = input_ids.shape
        check_length(tokens, self.config.max_position_embeddings)
        visible = input_ids != self.config.pad_token_id if attention_mask is None else attention_mask.bool()
        embeddings = self._embed_text(input_ids)
        positions = self.pos_ln(self.embed_positions.weight[None, :tokens])
        image = None
        if patch_images is not None:
            image = self._embed_image(patch_images)
            image_mask = torch.ones_like(visible[:, 0]) if patch_masks is None else patch_masks.bool()
            visible = torch.cat([image_mask[:, None].expand(-1, image.embeddings.shape[1]), visible], dim=1)
            embeddings = torch.cat([image.embeddings, embeddings], dim=1)
            positions = torch.cat([image.positions, positions], dim=1)
        # One look at the device here spares the mask, which is as large as the scores, in every layer and step.
        mask = None if bool(visible.all()) else visible
        x = self._attend(embeddings, positions, image, mask)
        return OFAEncoderOutput(
            last_hidden_state=self.layer_norm(x),
            position_embedding=positions.expand(batch, -1, -1),
            attention_mask=mask,
        )

    def _embed_text(self, input_ids: Tensor) -> Tensor:
        x = self.embed_scale * self.embed_tokens(input_ids)
        if self.type_embedding is not None:
            x = x + self.type_embedding.weight[0]
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        return self.dropout(x)

    def _embed_image(self, images: Tensor) -> _Image:
        size = self.config.image_bucket_size
        features = self.embed_images(images)
        rows, columns = features.shape[-2:]
        if max(rows, columns) > size:
            raise ConfigError(
                f"an image of {images.shape[-2]} x {images.shape[-1]} pixels is too large for this OFA",
                f"patch_image_size is {size * STRIDE} at most",
            )
        x = self.embed_scale * self.image_proj(features.flatten(2).transpose(1, 2))
        if self.type_embedding is not None:
            x = x + self.type_embedding.weight[1]
        if self.patch_layernorm_embedding is not None:
            x = self.patch_layernorm_embedding(x)
        index = image_positions(rows, columns, size, images.device)
        return _Image(
            self.dropout(x),
            self.image_pos_ln(self.embed_image_positions(index)[None]),
            image_distances(rows, columns, size, images.device),
        )

    def _attend(self, x: Tensor, positions: Tensor, image: _Image | None, mask: Tensor | None) -> Tensor:
        absolute = absolute_bias(
            self.pos_q_linear, self.pos_k_linear, positions, positions, self.heads, self.position_scale
        )
        patches = 0 if image is None else image.embeddings.shape[1]
        tokens = x.shape[1] - patches
        text = token_distances(self.token_rp_bucket, tokens, tokens)
        mask = None if mask is None else mask[:, None, None, :]
        for layer, text_table, image_table in zip(
            self.layers, self.token_rel_pos_table_list, self.image_rel_pos_table_list, strict=True
        ):
            bias = absolute.clone()
            bias[:, :, patches:, patches:] += relative_bias(text_table, text)
            if image is not None:
                bias[:, :, :patches, :patches] += relative_bias(image_table, image.distances)
            x = layer(x, bias, mask)
        return x


def relative_tables(layers: int, buckets: int, heads: int) -> nn.ModuleList:
    """A table [buckets, heads] for each layer."""
    return nn.ModuleList(nn.Embedding(buckets, heads) for _ in range(layers))


def check_length(tokens: int, limit: int) -> None:
    """Refuse what has no position embedding, with a DataError."""
    if tokens > limit:
        raise DataError(f"a text of {tokens} tokens is too long for this OFA", f"it takes {limit} at most")
