"""The prefix cache of chat models."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from icltool.components.models.chat.chat_images import ChatImages
from icltool.components.models.shared.image_prefix_cache import (
    DeeperStates,
    Gemma4PrefixCache,
    ImagePrefixCache,
    JoinedImages,
    ThreePositions,
    text_supports_prefix_cache,
)
from icltool.components.models.shared.processed import ProcessedModel

#: Architectures tested to give the same results with a prefix cache as without.
WITH_PREFIX_CACHE: dict[str, type[ImagePrefixCache]] = {
    "gemma3": JoinedImages,
    "gemma4": Gemma4PrefixCache,
    "idefics3": ImagePrefixCache,
    "internvl": ImagePrefixCache,
    "llava_onevision": ImagePrefixCache,
    "mistral3": ImagePrefixCache,
    "qwen2_5_vl": ThreePositions,
    "qwen2_vl": ThreePositions,
    "qwen3_vl": DeeperStates,
    "smolvlm": ImagePrefixCache,
}


def chat_prefix_cache(adapter: ProcessedModel, images: ChatImages) -> ImagePrefixCache | None:
    """The prefix cache of this model; None for an architecture that was not tested."""
    kind = WITH_PREFIX_CACHE.get(adapter.model.config.model_type)
    if kind is None:
        return None
    inner = adapter.model.model
    decoder = inner.text_model if hasattr(inner, "text_model") else inner.language_model
    if not text_supports_prefix_cache(decoder.config):
        return None

    def encode(paths: Sequence[str]) -> list[torch.Tensor]:
        return [images.encode(path, adapter._on_device) for path in paths]

    parts = (adapter, decoder, int(adapter.model.config.image_token_id), images.tokens, images.rows, encode)
    if issubclass(kind, ThreePositions):
        return kind(*parts, grids_of=lambda path: images.processed(path).extras["image_grid_thw"])
    return kind(*parts)
