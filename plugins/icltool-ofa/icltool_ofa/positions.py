"""Positions: buckets of relative distances, and the bias that absolute positions add to attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MAX_DISTANCE = 1024
"""Distances in the text are below this, whatever the configuration's max_position_embeddings."""


def token_buckets(size: int) -> Tensor:
    """int64 [2 * 1024 - 1]: the bucket, 0 to 2 `size` - 2, of the distance query - key, which is at index distance + 1023.

    Distances to `size` // 2 have a bucket each, those beyond share buckets that grow logarithmically to 1023 (as in T5,
    arXiv:1910.10683, section 2.1, with one table for both directions).
    """
    middle = size // 2
    distance = torch.arange(1 - MAX_DISTANCE, MAX_DISTANCE)
    far = distance.abs().clamp(min=middle)
    # Single precision, as the checkpoints were trained: at the last bucket's edge the ceiling depends on it.
    steps = torch.log(far / middle) / math.log((MAX_DISTANCE - 1) / middle) * (middle - 1)
    logarithmic = (torch.ceil(steps).long() + middle) * distance.sign()
    return torch.where(distance.abs() <= middle, distance, logarithmic) + size - 1


def token_distances(buckets: Tensor, queries: int, keys: int) -> Tensor:
    """int64 [queries, keys]: the buckets of the last `queries` of `keys` positions against all of them."""
    positions = torch.arange(keys, device=buckets.device)
    return buckets[positions[keys - queries :, None] - positions[None, :] + MAX_DISTANCE - 1]


def image_positions(rows: int, columns: int, size: int, device: torch.device) -> Tensor:
    """int64 [rows * columns]: row * `size` + column + 1, the index of an image position's embedding."""
    row = torch.arange(rows, device=device)[:, None]
    column = torch.arange(columns, device=device)[None, :]
    return (row * size + column + 1).flatten()


def image_distances(rows: int, columns: int, size: int, device: torch.device) -> Tensor:
    """int64 [rows * columns, rows * columns]: the bucket of each pair's distance in rows and columns, by row."""
    row = torch.arange(rows, device=device).repeat_interleave(columns)
    column = torch.arange(columns, device=device).repeat(rows)
    down = row[:, None] - row[None, :] + size - 1
    across = column[:, None] - column[None, :] + size - 1
    return down * (2 * size - 1) + across


def image_buckets(size: int) -> int:
    """How many rows the table of relative image positions has; the last three belong to image generation."""
    return (2 * size - 1) ** 2 + 3


def absolute_bias(query: nn.Linear, key: nn.Linear, queries: Tensor, keys: Tensor, heads: int, scale: float) -> Tensor:
    """float [1, heads, Q, K]: scale * (W_q p) . (W_k p') of normalised position embeddings float [1, Q, d] and [1, K, d].

    Positions do not depend on the row of a batch, so that one row stands for all (TUPE, arXiv:2006.15595, section 3.1).
    """
    q = query(queries).unflatten(-1, (heads, -1)).transpose(1, 2)
    k = key(keys).unflatten(-1, (heads, -1)).transpose(1, 2)
    return (q * scale) @ k.transpose(-1, -2)


def relative_bias(table: nn.Embedding, buckets: Tensor) -> Tensor:
    """float [1, heads, Q, K] of buckets int64 [Q, K] and a table [buckets, heads]."""
    return table(buckets).permute(2, 0, 1)[None]
