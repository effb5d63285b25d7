"""CLIP in the training loop: towers that run in every step, trained with the selector or frozen.

A batch's distinct images and texts are opened and preprocessed by threads while the device works on earlier batches. They are
encoded once, and looked up by their rows of the index set like stored embeddings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from icltool.components.learners.lever_lm.checkpoint import CLIP, probe_rows
from icltool.components.learners.lever_lm.model import Features
from icltool.components.learners.lever_lm.options import SOURCES, LeverLMOptions
from icltool.components.learners.lever_lm.rows import Batch
from icltool.contracts import IndexSet, QuerySet, TrainableEncoder
from icltool.contracts.encoder import TradesTimeForMemory
from icltool.engine.devices import usable_cores
from icltool.errors import ConfigError, DataError

Preprocess = Callable[[Sequence[str]], Tensor]

#: Batches opened in advance, images that a thread opens at once, and the maximal number of threads.
AHEAD, CHUNK, MOST_WORKERS = 2, 8, 16


@dataclass  # not frozen, as Batch
class Opened:
    """The input of one tower for a batch: `inputs` [U, ...] of the distinct images or texts, and for each of the batch's
    `rows` of the index set int64 [R], ascending, its index among them int64 [R]."""

    rows: Tensor
    places: Tensor
    inputs: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> Opened:
        return Opened(*(part.to(device, non_blocking=non_blocking) for part in (self.rows, self.places, self.inputs)))


@dataclass  # not frozen, as Batch
class OpenedBatch:
    """A batch with the towers' inputs, by modality. Lightning moves it between devices through `to`."""

    batch: Batch
    opened: Mapping[str, Opened]

    def to(self, device: torch.device, non_blocking: bool = False) -> OpenedBatch:
        return OpenedBatch(
            self.batch.to(device, non_blocking), {m: part.to(device, non_blocking) for m, part in self.opened.items()}
        )


class BatchTable:
    """Features of a batch's examples, indexed by rows of the index set as the whole table [N, D] would be.

    A row outside the batch (the padding of a short sequence) gets the features of some other row: models leave such positions
    out of the loss.
    """

    def __init__(self, opened: Opened, features: Tensor) -> None:
        """`features` [U, D]."""
        self._rows, self._places, self._features = opened.rows, opened.places, features

    def __getitem__(self, rows: Tensor) -> Tensor:
        """int64 [...] -> [..., D]."""
        positions = torch.searchsorted(self._rows, rows.contiguous()).clamp(max=len(self._rows) - 1)
        return self._features[self._places[positions]]


class OnlineClip(nn.Module):
    """The towers that run in every step; those in `trained` are trained, the others are frozen."""

    def __init__(self, towers: Mapping[str, nn.Module], trained: frozenset[str]) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(dict(towers))
        self.trained = trained
        for modality, tower in self.towers.items():
            tower.requires_grad_(modality in trained)
        self.train()  # encoders are in evaluation mode, which Lightning does not change

    def train(self, mode: bool = True) -> OnlineClip:
        """Frozen towers stay in evaluation mode."""
        super().train(mode)
        for modality, tower in self.towers.items():
            tower.train(mode and modality in self.trained)
        return self

    def forward(self, opened: Mapping[str, Opened]) -> Features:
        """A table of the batch's features for each modality."""
        tables = {m: BatchTable(part, self.features(m, part.inputs)) for m, part in opened.items()}
        return cast("Features", tables)  # models only ever index it by rows

    def features(self, modality: str, inputs: Tensor) -> Tensor:
        """[U, ...] -> [U, D], in the precision of the weights."""
        dtype = next(self.towers[modality].parameters()).dtype
        if inputs.is_floating_point():
            inputs = inputs.to(dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and modality in self.trained):
            features: Tensor = self.towers[modality](inputs)
        return features.to(dtype)


def build_clip(encoder: TrainableEncoder, options: LeverLMOptions) -> OnlineClip:
    """The towers that run in every step according to `options`. Raises ConfigError for an option that a tower lacks."""
    towers = {modality: encoder.tower(modality) for modality in sorted(options.encoded)}
    for modality, tower in towers.items():
        if options.grad_checkpointing and modality in options.trained:
            if not isinstance(tower, TradesTimeForMemory):
                raise ConfigError(
                    f"the {modality} tower of encoder {encoder.name!r} does not support gradient checkpointing",
                    "use --option grad_checkpointing=false",
                )
            tower.set_grad_checkpointing(True)
    return OnlineClip(towers, options.trained)


class ClipSnapshot:
    """A checkpoint's tensors of the trained towers: their weights (`clip.image.…`, `clip.text.…`), and their features
    `index.<modality>` of some examples, by which a wrongly built tower is recognised."""

    def __init__(self, clip: OnlineClip, index: IndexSet, encoder: TrainableEncoder) -> None:
        rows = probe_rows(len(index)).tolist()
        self._clip = clip
        self._inputs = {
            m: encoder.preprocessor(m)([values_of(index, m)[row] for row in rows]) for m in sorted(clip.trained)
        }

    @torch.no_grad()
    def tensors(self) -> dict[str, Tensor]:
        training, clip = self._clip.training, self._clip.eval()
        device = next(clip.parameters()).device
        tensors = {f"index.{m}": clip.features(m, inputs.to(device)).float() for m, inputs in self._inputs.items()}
        for modality in self._inputs:
            tensors |= {f"{CLIP}{modality}.{name}": t for name, t in clip.towers[modality].state_dict().items()}
        clip.train(training)
        return tensors


class BatchOpener:
    """Opens the towers' inputs of a batch, in threads."""

    def __init__(self, index: IndexSet, encoder: TrainableEncoder, options: LeverLMOptions) -> None:
        """Raises ValueError if `index` has no images or texts, DataError for examples without an image."""
        self._options, self._examples = options, len(index)
        self._values = {m: values_of(index, m) for m in sorted(options.encoded)}
        self._preprocess: dict[str, Preprocess] = {m: encoder.preprocessor(m) for m in self._values}

    def start(self, batch: Batch, pool: ThreadPoolExecutor) -> Callable[[], OpenedBatch]:
        """Starts opening a batch; the returned function waits for the result."""
        started = {modality: self._started(modality, batch, pool) for modality in self._values}
        return lambda: OpenedBatch(batch, {modality: wait() for modality, wait in started.items()})

    def _started(self, modality: str, batch: Batch, pool: ThreadPoolExecutor) -> Callable[[], Opened]:
        rows = self._rows_read(modality, batch)
        values = [self._values[modality][row] for row in rows.tolist()]
        distinct = {value: place for place, value in enumerate(dict.fromkeys(values))}
        places = torch.tensor([distinct[value] for value in values], dtype=torch.int64)
        wait = open_in(pool, self._preprocess[modality], list(distinct))
        return lambda: Opened(rows, places, wait())

    def _rows_read(self, modality: str, batch: Batch) -> Tensor:
        """The rows of the index set whose features the model will look up, ascending."""
        reads, parts = self._options.reads, []
        if modality in reads.query:
            parts.append(batch.queries)
        if modality in reads.icd:
            parts.append(batch.tokens[:, 2:-1].flatten())
            if self._options.network == "pointer":
                parts.append(batch.pools.flatten())
        rows: Tensor = torch.unique(torch.cat(parts))
        return rows[(rows >= 0) & (rows < self._examples)]


class OpenedBatches:
    """A loader's batches as OpenedBatch, opened a few batches in advance."""

    def __init__(self, loader: DataLoader[Batch], opener: BatchOpener, workers: int) -> None:
        self._loader, self._opener, self._workers = loader, opener, workers

    @property
    def sampler(self) -> object:
        """Lightning sets its epoch."""
        return self._loader.sampler

    @property
    def batch_sampler(self) -> object:
        """Lightning reads it if there is a `sampler`."""
        return self._loader.batch_sampler

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[OpenedBatch]:
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="icltool-open")
        waiting: deque[Callable[[], OpenedBatch]] = deque()
        try:
            for batch in self._loader:
                waiting.append(self._opener.start(batch, pool))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
        finally:  # also when the consumer stops in the middle
            pool.shutdown(cancel_futures=True)


def open_in(pool: ThreadPoolExecutor, preprocess: Preprocess, values: Sequence[str]) -> Callable[[], Tensor]:
    """Preprocesses in the pool's threads; the returned function waits for the tensor [n, ...]."""
    chunks = [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]
    futures = [pool.submit(preprocess, chunk) for chunk in chunks]
    return lambda: torch.cat([future.result() for future in futures])


def values_of(arrays: IndexSet | QuerySet, modality: str) -> tuple[str, ...]:
    """The paths of the images, or the texts, of an index set or of queries.

    Raises ValueError if they are missing, DataError if an example has no image.
    """
    values: tuple[str, ...] = getattr(arrays, SOURCES[modality])
    if len(values) != len(arrays):
        raise ValueError(f"the {SOURCES[modality]} are missing")
    if modality == "image" and not all(values):
        raise DataError(
            f"{values.count('')} of {len(values)} examples have no image", "choose a variant that reads texts only"
        )
    return values


def thread_count(workers: int | None = None) -> int:
    """Threads that open images: `workers`, or one per CPU."""
    if workers is not None:
        return workers
    return min(usable_cores(), MOST_WORKERS)
