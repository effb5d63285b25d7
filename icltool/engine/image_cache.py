"""Image features, computed once: cached in memory up to a byte limit, and on disk if there is a store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from icltool.contracts import Model, PreparesImages, SupportsImageCache
from icltool.engine.batching import is_out_of_memory, release_memory
from icltool.engine.devices import device_of, device_type
from icltool.engine.preparing import ImagePipeline, worker_count
from icltool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

#: Images in one batch of the vision encoder. What a batch computes on a CPU should fit into its caches.
ON_GPU, ON_CPU = 32, 8


class FeatureStore(Protocol):
    """A persistent store of image features."""

    notes: list[str]

    def holds(self, path: str) -> bool:
        """Whether the image is stored. Cheap."""
        ...

    def get(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """The features of those images that are stored, tensors on any device."""
        ...

    def put(self, features: Mapping[str, Tensor]) -> None:
        """Stores features, without waiting for the disk. Failures become notes."""
        ...

    def close(self, finished: bool) -> None:
        """Writes everything to disk, in the fastest way if the run was interrupted (`finished` is False)."""
        ...


class ImageFeatureCache:
    """Features by image path: from memory (a least-recently-used cache), else from `disk`, else encoded.

    `batch_size` images are encoded at once, fewer when memory runs out. If the model is PreparesImages, `workers` processes
    read and resize the images announced by `expect`. `hits` (in memory), `from_disk` and `encoded` count images. `close` ends
    the workers and closes the store; a context manager does so at its end.
    """

    def __init__(
        self,
        model: SupportsImageCache,
        byte_limit: int,
        batch_size: int | None = None,
        workers: int = 0,
        disk: FeatureStore | None = None,
    ) -> None:
        self._model = model
        self._limit = byte_limit
        self._device = device_of(model)
        self._batch_size = batch_size or (ON_CPU if device_type(model) == "cpu" else ON_GPU)
        self._disk = self._store = disk  # the one is None once it is closed
        self._cached: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0
        self._pipeline: ImagePipeline | None = None
        if isinstance(model, PreparesImages):
            self._pipeline = ImagePipeline(model.image_reader(), workers)
        self.hits = 0
        self.from_disk = 0
        self.encoded = 0

    def __enter__(self) -> ImageFeatureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finished=error is None)

    @property
    def notes(self) -> list[str]:
        """Notes for the user about workers and the store."""
        parts = (self._pipeline, self._store)
        return [note for part in parts if part is not None for note in part.notes]

    def expect(self, paths: Iterable[str]) -> None:
        """Announces images in the order of later calls of `features`. Images in memory or on disk are skipped. Any number may
        be announced at any time; without workers this has no effect."""
        if self._pipeline is None or not self._pipeline.works_ahead:
            return
        disk = self._disk
        self._pipeline.expect(p for p in paths if p not in self._cached and not (disk is not None and disk.holds(p)))

    def features(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """path -> features for all distinct `paths`; missing ones are encoded in one call.

        Features that are evicted stay in the returned mapping, so a batch may be larger than the cache.
        """
        distinct = list(dict.fromkeys(paths))
        by_path = {p: self._cached[p] for p in distinct if p in self._cached}
        self.hits += len(by_path)
        missing = [p for p in distinct if p not in by_path]
        if missing and self._disk is not None:
            stored = self._disk.get(missing)
            by_path.update((path, self._placed(features)) for path, features in stored.items())
            self.from_disk += len(stored)
            missing = [p for p in missing if p not in stored]
        if missing:
            by_path.update(self._encoded(missing))
        self._keep(distinct, by_path)
        return by_path

    def close(self, finished: bool = True) -> None:
        """Ends the workers and closes the store; `finished` is False after an interruption. The cache remains usable without
        them."""
        disk, self._disk = self._disk, None
        try:
            if self._pipeline is not None:
                self._pipeline.close()
        finally:
            if disk is not None:
                disk.close(finished)

    def _keep(self, paths: Sequence[str], features: Mapping[str, Tensor]) -> None:
        for path in paths:
            if path not in self._cached:
                self._bytes += _size(features[path])
            self._cached[path] = features[path]
            self._cached.move_to_end(path)
        while self._bytes > self._limit and self._cached:
            _, dropped = self._cached.popitem(last=False)
            self._bytes -= _size(dropped)

    def _encoded(self, paths: Sequence[str]) -> dict[str, Tensor]:
        """Features of these images, in smaller batches when memory runs out; images that are encoded stay so."""
        order = list(paths) if self._pipeline is None else self._pipeline.ordered(paths)
        encoded: dict[str, Tensor] = {}
        prepared: dict[str, Any] = {}
        while len(encoded) < len(order):
            part = order[len(encoded) : len(encoded) + self._batch_size]
            features = self._tried(part, prepared)
            if features is None:
                self._halve(part)
                continue
            fresh = {path: _alone(self._placed(f)) for path, f in zip(part, features, strict=True)}
            self.encoded += len(fresh)
            encoded.update(fresh)
            if self._disk is not None:
                self._disk.put(fresh)
        return encoded

    def _tried(self, part: Sequence[str], prepared: dict[str, Any]) -> list[Tensor] | None:
        """Features of a batch, or None when memory did not suffice. `prepared` keeps what is ready for the next try."""
        try:
            if self._pipeline is None:
                return self._model.image_features(part, len(part))
            for path in part:
                if path not in prepared:
                    prepared[path] = self._pipeline.take(path)
            assert isinstance(self._model, PreparesImages)
            features = self._model.encode_images([prepared[path] for path in part])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        for path in part:
            del prepared[path]
        return features

    def _halve(self, part: Sequence[str]) -> None:
        release_memory()
        if len(part) == 1:
            raise ConfigError(
                f"out of memory while encoding the image {part[0]}",
                "--image-cache-mb 0 keeps no images, --dtype bfloat16 or --quantization 4bit take less",
            )
        self._batch_size = len(part) // 2

    def _placed(self, features: Tensor) -> Tensor:
        """On the model's device: where features come from disk, too, all must be on one."""
        return features if self._store is None or self._device is None else features.to(self._device)


def open_image_cache(
    model: Model | None, byte_limit: int, workers: int | Literal["auto"] = 0, disk: FeatureStore | None = None
) -> ImageFeatureCache | None:
    """The cache, if the model supports one and there is memory or a store for it; else None."""
    if not isinstance(model, SupportsImageCache) or (byte_limit <= 0 and disk is None):
        return None
    return ImageFeatureCache(model, byte_limit, workers=worker_count(workers, device_type(model)), disk=disk)


def _alone(features: Tensor) -> Tensor:
    """The features without the rest of their batch, whose memory a view would hold for as long as it is kept."""
    whole = features.untyped_storage().nbytes()
    return features.clone() if whole > _size(features) else features


def _size(features: Tensor) -> int:
    return int(features.numel() * features.element_size())
