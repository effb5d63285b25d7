"""Training items: captions of the training examples, in a different order in every epoch, and their images."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from icltool.components.learners.fitting.batches import DealtBatches
from icltool.contracts import Example, Examples, FloatArray, IntArray, PixelReader, keyed_generator
from icltool.errors import DataError, IclError

_SIDES = re.compile(r"\b(?:left|right)(?:most|wards?|hand(?:ed)?|side)?\b", re.IGNORECASE)
_CHUNK = 1024


class Batch(TypedDict):
    """Positions of items, and their images float32 [B, 3, H, W]; or the error that prevented reading them."""

    positions: list[int]
    pixels: Tensor
    error: IclError | None


class Items:
    """One item for each caption (`captions` "all"), or for each example ("first").

    `rows` are the examples used: all, or `limit` drawn by seed. `mirrored` is whether an item's image may be
    mirrored. Raises DataError if there is nothing to learn from.
    """

    def __init__(self, examples: Examples, captions: str, limit: int | None, seed: int) -> None:
        self._examples = examples
        self.rows = drawn(len(examples), limit, seed, "captioner.train")
        row_of, caption_of, mirrored = [], [], []
        self.images: list[str] = []
        self.ids: list[int] = []
        styles: set[str] = set()
        for low in range(0, len(self.rows), _CHUNK):
            for example in examples.rows(self.rows[low : low + _CHUNK]):
                place = len(self.images)
                self.images.append(example.image)
                self.ids.append(example.id)
                styles.add(example.style)
                for number, text in enumerate(_captions(example, captions)):
                    row_of.append(place)
                    caption_of.append(number)
                    mirrored.append(not (_SIDES.search(text) or _SIDES.search(example.question)))
        if not row_of:
            raise DataError("there are no captions to learn from", "prepare a data set whose index set has examples")
        #: int64 [items]: the position of each item's example in `rows`, and its caption's number.
        self.place, self.caption = np.array(row_of, np.int64), np.array(caption_of, np.int64)
        self.mirrored = np.array(mirrored, bool)
        self.styles = sorted(styles - {""})
        self.all_captions = captions == "all"

    def __len__(self) -> int:
        return len(self.place)

    def examples(self, positions: Sequence[int]) -> list[Example]:
        """The examples of these items, each with the item's caption as its label."""
        examples = self._examples.rows(self.rows[self.place[list(positions)]])
        if not self.all_captions:
            return examples
        return [
            replace(example, label=_captions(example, "all")[int(self.caption[position])])
            for example, position in zip(examples, positions, strict=True)
        ]

    def references(self) -> Iterator[tuple[str, ...]]:
        """The references of each example."""
        for low in range(0, len(self.rows), _CHUNK):
            for example in self._examples.rows(self.rows[low : low + _CHUNK]):
                yield example.references


def _captions(example: Example, which: str) -> tuple[str, ...]:
    return (example.references or (example.label,)) if which == "all" else (example.label,)


def drawn(count: int, limit: int | None, seed: int, purpose: str) -> IntArray:
    """int64: all rows below `count` in order, or `limit` of them, drawn by seed, in order."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(keyed_generator(seed, purpose).permutation(count)[:limit]).astype(np.int64)


class EpochOrder(DealtBatches):
    """Keys (epoch, positions), in an order that depends only on seed and epoch. Epoch `epoch` begins with batch
    `start`."""

    start = 0

    def begin_at(self, epoch: int, batch: int) -> None:
        """Sets where the first iteration starts."""
        self.epoch, self.start = epoch, batch

    def set_epoch(self, epoch: int) -> None:
        """See DealtBatches."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        epoch, start = self.epoch, self.start
        order = keyed_generator(self.seed, "captioner.order", epoch).permutation(self.count)
        for positions in self.dealt(order, start):
            yield epoch, tuple(positions)


class TrainingImages(Dataset[Batch]):
    """Reads the images of batches of items, augmented with draws keyed by seed, epoch, example and caption."""

    def __init__(self, items: Items, reader: PixelReader, seed: int) -> None:
        self.reader, self.seed = reader, seed
        self.images, self.ids = items.images, items.ids
        self.place, self.caption, self.mirrored = items.place, items.caption, items.mirrored

    def __getitem__(self, key: tuple[int, tuple[int, ...]]) -> Batch:
        epoch, positions = key
        try:
            pixels = [self._read(epoch, position) for position in positions]
        except IclError as error:  # a worker's exceptions would lose their hints
            return Batch(positions=list(positions), pixels=torch.empty(0), error=error)
        return Batch(positions=list(positions), pixels=torch.from_numpy(np.stack(pixels)), error=None)

    def _read(self, epoch: int, position: int) -> FloatArray:
        place, caption = int(self.place[position]), int(self.caption[position])
        generator = keyed_generator(self.seed, f"captioner.pixels.{epoch}.{caption}", self.ids[place])
        return self.reader(self.images[place], generator, bool(self.mirrored[position]))


class PlainImages(Dataset[Batch]):
    """Images as in evaluation; positions are indices into `images`."""

    def __init__(self, images: Sequence[str], reader: PixelReader) -> None:
        self.images, self.reader = list(images), reader

    def __getitem__(self, key: Sequence[int]) -> Batch:
        try:
            pixels = torch.from_numpy(np.stack([self.reader(self.images[i]) for i in key]))
        except IclError as error:
            return Batch(positions=list(key), pixels=torch.empty(0), error=error)
        return Batch(positions=list(key), pixels=pixels, error=None)


def loader(images: Dataset[Batch], order: Iterable[object], workers: int) -> DataLoader[Batch]:
    """Batches in this order, read in advance by `workers` processes."""
    return DataLoader(
        images,
        sampler=order,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_ignore_interrupts,
    )


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the training ends its workers itself after saving its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
