"""Image features, computed once and kept within a byte limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from icltool.contracts import SupportsImageCache
from icltool.engine.batching import is_out_of_memory, release_memory
from icltool.errors import ConfigError


class ImageFeatureCache:
    """Features by image path, least recently used out first. `hits` and `encoded` count images."""

    def __init__(self, model: SupportsImageCache, byte_limit: int, batch_size: int = 32) -> None:
        self._model = model
        self._limit = byte_limit
        self._batch_size = batch_size
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.encoded = 0

    def features(self, paths: Sequence[str]) -> dict[str, Any]:
        """path -> features for all distinct `paths`; those not kept are encoded in one call.

        What the limit pushes out stays in the returned mapping, so that a batch larger than the cache still works.
        """
        wanted = list(dict.fromkeys(paths))
        missing = [p for p in wanted if p not in self._kept]
        self.hits += len(wanted) - len(missing)
        self.encoded += len(missing)
        found = {p: self._kept[p] for p in wanted if p in self._kept}
        if missing:
            found.update(zip(missing, self._encoded(missing), strict=True))
        for path in wanted:
            if path not in self._kept:
                self._bytes += _size(found[path])
            self._kept[path] = found[path]
            self._kept.move_to_end(path)
        while self._bytes > self._limit and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)
        return found

    def _encoded(self, paths: Sequence[str]) -> list[Any]:
        """Features of these images, in smaller batches when memory runs out; images that are encoded stay so."""
        encoded: list[Any] = []
        while len(encoded) < len(paths):
            part = paths[len(encoded) : len(encoded) + self._batch_size]
            try:
                encoded += self._model.image_features(part, self._batch_size)
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            release_memory()
            if len(part) == 1:
                raise ConfigError(
                    f"out of memory while encoding the image {part[0]}",
                    "--image-cache-mb 0 keeps no images, --dtype bfloat16 or --quantization 4bit take less",
                )
            self._batch_size = len(part) // 2
        return encoded


def _size(features: Any) -> int:
    return int(features.numel() * features.element_size())
