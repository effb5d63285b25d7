"""A learnable miniature: best for a query are the index examples nearest to it in one half of the feature space."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icltool.contracts import IndexSet, IntArray, QuerySet, Ticker, TrainingOutcome, TrainingSet

if TYPE_CHECKING:
    from icltool.components.learners.lever_lm.learner import LeverLM

#: Width of the half of each feature vector that decides.
HALF = 8


class RecordingProgress:
    """Keeps what a stage reports."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int]] = []
        self.done = 0
        self.notes: list[str] = []
        self.said: list[str] = []
        self.details: list[str] = []

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[Ticker]:
        self.tasks.append((description, total))
        yield self

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        self.notes.append(text)

    def say(self, text: str) -> None:
        self.said.append(text)

    def detail(self, text: str) -> None:
        self.details.append(text)


@dataclass(frozen=True)
class Trained:
    """A finished training; `queries` are the rows that sequences were made for."""

    index: IndexSet
    data: TrainingSet
    folder: Path
    outcome: TrainingOutcome
    progress: RecordingProgress
    queries: IntArray
    learner: LeverLM


def make_index(examples: int = 60, seed: int = 0, kinds: int = 6) -> IndexSet:
    """Examples of some kinds: half of the image features tells the kind, the rest is noise; ids are not rows."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(kinds, HALF))
    of_kind = np.arange(examples) % kinds
    telling = centres[of_kind] + 0.1 * rng.normal(size=(examples, HALF))
    image = np.concatenate([telling, rng.normal(size=(examples, HALF))], axis=1)
    text = rng.normal(size=(examples, 2 * HALF))
    ids = 1000 + 7 * np.arange(examples, dtype=np.int64)
    return IndexSet(
        ids=ids,
        image_ids=ids + 50_000,
        groups=np.full(examples, -1, dtype=np.int64),
        image=image.astype(np.float32),
        text=text.astype(np.float32),
    )


def kind_of(rows: IntArray, kinds: int = 6) -> IntArray:
    return rows % kinds


def best_rows(index: IndexSet, query: int, shots: int) -> IntArray:
    """The rows nearest to a query (a row) in the deciding half, itself left out, the nearest first."""
    assert index.image is not None
    gap = np.linalg.norm(index.image[:, :HALF] - index.image[query, :HALF], axis=1)
    gap[query] = np.inf
    return np.argsort(gap)[:shots]


def make_training_set(
    index: IndexSet, shots: int = 2, beams: int = 3, seed: int = 0, queries: int | None = None
) -> TrainingSet:
    """For each query `beams` sequences out of its six nearest rows, with positive scores."""
    rng = np.random.default_rng(seed)
    query_rows = np.arange(len(index)) if queries is None else np.sort(rng.permutation(len(index))[:queries])
    icds = [rng.permutation(best_rows(index, q, 6))[:shots] for q in query_rows for _ in range(beams)]
    return TrainingSet(
        index=index,
        query_rows=np.repeat(query_rows, beams).astype(np.int64),
        icd_rows=np.array(icds, dtype=np.int64),
        scores=rng.uniform(0.1, 1.0, len(icds)),
        provenance={"dataset": "synthetic", "encoder": "none-at-all", "encoder_fingerprint": "f00d"},
    )


def make_queries(index: IndexSet, rows: IntArray) -> QuerySet:
    """These rows of the index as queries of the same split."""
    assert index.image is not None
    assert index.text is not None
    return QuerySet(
        ids=index.ids[rows],
        image_ids=index.image_ids[rows],
        groups=index.groups[rows],
        image=index.image[rows],
        text=index.text[rows],
        same_split=True,
    )
