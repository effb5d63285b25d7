"""The prefix cache of chat models."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from icltool.components.models.chat.chat_images import ChatImages
from icltool.components.models.shared.image_prefix_cache import (
    ImagePrefixCache,
    ThreePositions,
    text_supports_prefix_cache,
)
from icltool.components.models.shared.processed import ProcessedModel

#: Architectures tested to give the same results with a prefix cache as without. In Gemma 3 the tokens of an image attend to
#: later tokens of that image, so it is not among them; the others not named cannot encode an image once.
WITH_PREFIX_CACHE = frozenset({"idefics3", "internvl", "qwen2_5_vl", "qwen2_vl", "smolvlm"})


def chat_prefix_cache(adapter: ProcessedModel, images: ChatImages) -> ImagePrefixCache | None:
    """The prefix cache of this model; None for an architecture that was not tested."""
    if adapter.model.config.model_type not in WITH_PREFIX_CACHE:
        return None
    inner = adapter.model.model
    decoder = inner.text_model if hasattr(inner, "text_model") else inner.language_model
    if not text_supports_prefix_cache(decoder.config):
        return None
    image_token = int(adapter.model.config.image_token_id)
    marker = str(adapter.tokenizer.convert_ids_to_tokens(image_token))

    def encode(paths: Sequence[str]) -> list[torch.Tensor]:
        return [images.encode(path, adapter._on_device) for path in paths]

    parts = (
        adapter,
        decoder,
        image_token,
        images.tokens,
        lambda path: images.processed(path).text.count(marker),
        encode,
    )
    if adapter.model.config.model_type.startswith("qwen2"):
        return ThreePositions(*parts, grids_of=lambda path: images.processed(path).extras["image_grid_thw"])
    return ImagePrefixCache(*parts)
