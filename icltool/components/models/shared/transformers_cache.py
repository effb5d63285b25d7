"""A transformers cache over keys and values that are stored outside it: only what a layer attends to is copied."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from transformers import GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer

from icltool.contracts import KeysValues

if TYPE_CHECKING:
    from transformers.utils.generic import ModelOutput


class PrefixLayer(DynamicLayer):
    """One layer for one forward pass: reads its keys and values from `past` when the layer runs, and keeps only those of the
    new tokens, if asked to `keep` them."""

    def __init__(self, past: KeysValues | None, number: int, columns: int, keep: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._past, self._number, self._columns, self._keep = past, number, columns, keep
        self.own: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._keep:
            self.own = key_states, value_states
        if self._past is None:
            return key_states, value_states
        keys, values = self._past[self._number]
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)

    def get_seq_length(self, *args: object) -> int:
        return self._columns


@lru_cache
def _cache_parameter(function: Callable[..., object]) -> str | None:
    """The name under which a function takes its cache: "past_key_values" until transformers 5.23, "cache" from 5.24 on."""
    names = inspect.signature(function).parameters
    return next((name for name in ("cache", "past_key_values") if name in names), None)


def generation_cache(cache: Cache | None) -> dict[str, Cache | None]:
    """The keyword argument that hands `cache` to `generate` of transformers, whatever the model."""
    name = _cache_parameter(GenerationMixin.prepare_inputs_for_generation)
    assert name is not None
    return {name: cache}


def forward_cache(model: torch.nn.Module, cache: Cache | None) -> dict[str, Cache | None]:
    """The keyword argument that hands `cache` to the forward pass of a transformers model; if its signature names none, the
    one that `generate` uses."""
    name = _cache_parameter(type(model).forward)
    return generation_cache(cache) if name is None else {name: cache}


def output_cache(output: ModelOutput) -> Cache | None:
    """The cache that a forward pass of a transformers model returned, if any."""
    cache: Cache | None = output["cache"] if "cache" in output else output.get("past_key_values")
    return cache


def cache_of_prefix(past: KeysValues | None, layers: int, columns: int, keep: bool) -> Cache:
    """A cache for one forward pass of a model of `layers` layers after `past`, which has `columns` columns (0 for None)."""
    return Cache(layers=[PrefixLayer(past, number, columns, keep) for number in range(layers)])


def own_keys_values(cache: Cache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of the new tokens, layer by layer."""
    return [layer.own for layer in cache.layers if isinstance(layer, PrefixLayer) and layer.own is not None]
