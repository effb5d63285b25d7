"""Chat models that go on from keys and values of tokens computed before."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from icltool.components.models.chat.chat_images import ImageShelf
from icltool.components.models.shared.image_prefix_cache import (
    ImagePrefixCache,
    ThreePositions,
    text_supports_prefix_cache,
)
from icltool.components.models.shared.processed import ProcessedModel

#: Architectures of which a test shows that prompts in parts give what whole prompts give. In Gemma 3 the tokens of an image
#: see those that follow within the image, so it is not among them; the others not named cannot encode an image once.
WITH_PREFIX_CACHE = frozenset({"idefics3", "internvl", "qwen2_5_vl", "qwen2_vl", "smolvlm"})


def chat_prefix_cache(adapter: ProcessedModel, shelf: ImageShelf) -> ImagePrefixCache | None:
    """The ability of this model, or None where it is not shown to be right."""
    if adapter.model.config.model_type not in WITH_PREFIX_CACHE:
        return None
    inner = adapter.model.model
    decoder = inner.text_model if hasattr(inner, "text_model") else inner.language_model
    if not text_supports_prefix_cache(decoder.config):
        return None
    image_token = int(adapter.model.config.image_token_id)
    written = str(adapter.tokenizer.convert_ids_to_tokens(image_token))

    def encode(paths: Sequence[str]) -> list[torch.Tensor]:
        return [shelf.encode(path, adapter._on_device) for path in paths]

    parts = (adapter, decoder, image_token, shelf.tokens, lambda path: shelf.shown(path).text.count(written), encode)
    if adapter.model.config.model_type.startswith("qwen2"):
        return ThreePositions(*parts, grids_of=lambda path: shelf.shown(path).extras["image_grid_thw"])
    return ImagePrefixCache(*parts)
