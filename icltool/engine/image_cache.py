"""Image features, computed once and kept within a byte limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from icltool.contracts import SupportsImageCache


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
            found.update(zip(missing, self._model.image_features(missing, self._batch_size), strict=True))
        for path in wanted:
            if path not in self._kept:
                self._bytes += _size(found[path])
            self._kept[path] = found[path]
            self._kept.move_to_end(path)
        while self._bytes > self._limit and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)
        return found


def _size(features: Any) -> int:
    return int(features.numel() * features.element_size())
