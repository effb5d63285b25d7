"""Opens a scoring session with the caches that its model supports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from icltool.contracts import GenerationOptions, Model, Task
from icltool.engine.batching import BatchSize
from icltool.engine.devices import device_of, device_type
from icltool.engine.extraction import ReadsLetter
from icltool.engine.image_cache import FeatureStore, open_image_cache
from icltool.engine.parity import parity_note
from icltool.engine.session import PREFIX_BYTES, PREFIX_SHARE, FeatureSource, Session


def open_session(
    task: Task | str,
    model: Model | None,
    generation: GenerationOptions,
    batch_size: BatchSize,
    cache_bytes: int,
    lookup: FeatureSource | None = None,
    corpus: Callable[[], Iterable[tuple[str, ...]]] | None = None,
    prefix_bytes: int = PREFIX_BYTES,
    image_workers: int | Literal["auto"] = 0,
    image_store: FeatureStore | None = None,
    letter: ReadsLetter | None = None,
) -> Session:
    """A Session with an image-feature cache of `cache_bytes` and a prefix cache of `prefix_bytes`, as far as the model supports
    them (0: no cache). `image_workers` processes prepare images, `image_store` keeps their features for later runs, `letter`
    reads letters in answers. The session must be closed.

    With untested releases of other packages, caches that change the model's results are not used."""
    if model is not None and (cache_bytes > 0 or prefix_bytes > 0):
        note = parity_note(
            model,
            lambda: Session(
                task, model, generation, 2, open_image_cache(model, cache_bytes), prefix_bytes=prefix_bytes
            ),
        )
        if note:
            return Session(task, model, generation, batch_size, None, lookup, corpus, remarks=[note], letter=letter)
    cache = open_image_cache(model, cache_bytes, image_workers, image_store)
    return Session(task, model, generation, batch_size, cache, lookup, corpus, prefix_bytes, letter=letter)


def prefix_bytes(megabytes: int | None, model: Model | None) -> int:
    """The size of the prefix cache in bytes: `megabytes`, or a default for the model's device."""
    if megabytes is not None:
        return megabytes * 2**20
    if device_type(model) != "cuda":
        return PREFIX_BYTES
    import torch

    return int(torch.cuda.mem_get_info(device_of(model))[0] * PREFIX_SHARE)
