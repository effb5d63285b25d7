"""Learners train something that chooses or stands in for demonstrations (a selector, in-context vectors)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from icltool.contracts.arrays import Float64Array, IndexSet, IntArray
from icltool.contracts.encoder import TrainableEncoder
from icltool.contracts.model import Features, Model
from icltool.contracts.progress import Progress
from icltool.contracts.records import Example
from icltool.contracts.task import Task


@dataclass(frozen=True)
class TrainingSet:
    """Generated sequences with the index set that they speak of.

    R rows of K demonstrations: `query_rows` int64 [R] and `icd_rows` int64 [R, K] are rows of `index` (ICDs in prompt
    order, -1 on the right where a sequence is shorter), `scores` float64 [R]. `candidate_rows` int64 [R, C] is the pool
    that each row's sequence was searched in (-1 on the right where it is smaller), None where that is not known. The
    arrays of `index` hold the embeddings that the learner's `needs` ask for.
    `provenance` goes into the checkpoint's card (dataset, fingerprint, encoder, sequences file, versions). `encoder` is
    the one that made the embeddings, for a learner that trains it and says so in its `needs`; it lies on the CPU.
    """

    index: IndexSet
    query_rows: IntArray
    icd_rows: IntArray
    scores: Float64Array
    provenance: Mapping[str, Any] = field(default_factory=dict)
    candidate_rows: IntArray | None = None
    encoder: TrainableEncoder | None = None


@dataclass(frozen=True)
class TrainingOutcome:
    """What training left: checkpoint files by name (last, min_vl, min_tl), and one record of figures per validation."""

    checkpoints: Mapping[str, Path]
    history: Sequence[Mapping[str, float]]


@runtime_checkable
class Learner(Protocol):
    """Trains and writes checkpoints into a folder. Built from its own options by the registry.

    `needs` is a subset of {"image", "text", "texts", "images", "encoder"}: the arrays of the index set that must be
    filled, and whether the encoder of the embeddings comes with them, to be trained.

    A method `identity() -> dict` may give the options that decide the result, defaults included; without it the options
    that the user gave decide whether a finished training is up to date.
    """

    needs: frozenset[str]

    def train(self, data: TrainingSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Trains on `data`; the same data, options and seed give the same weights on one machine."""
        ...


class Examples(Protocol):
    """Examples by row, read when they are asked for."""

    def __len__(self) -> int: ...

    def rows(self, rows: IntArray | Sequence[int]) -> list[Example]:
        """The examples in these rows, in the order given."""
        ...


@dataclass(frozen=True)
class SteeringSet:
    """The frozen LVLM, and the labelled examples that it is to be steered by.

    `index` has the same rows as `examples`, with what the leak guard compares. `features` maps image paths to what
    `Model.score` takes as features, None where the model encodes images within each prompt. `batch_size` is how many
    prompts are read at once where no gradient is kept. `expect` announces image paths in the order in which they will be
    needed. `provenance` goes into the card of what is made.
    """

    model: Model
    task: Task
    examples: Examples
    index: IndexSet
    features: Callable[[Sequence[str]], Features]
    batch_size: int = 8
    expect: Callable[[Iterable[str]], None] = lambda paths: None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class SteeringLearner(Protocol):
    """Makes an intervention (see `icltool.contracts.intervention`) out of examples and the LVLM itself. Built from its own
    options by the registry; the intervention of the same name reads its file.

    The file must be one that `icltool.write_intervention` writes, with a card beside it (`icltool.save_intervention` writes
    the file alone): `icltool evaluate` knows method, model and data from its header. `icltool.about_steering` gives the
    keys of that record which are told from the SteeringSet. `icltool.hooked_model` gives the set's model, or the
    ConfigError that is due where it has no hooks.

    A method `identity() -> dict` as of Learner.
    """

    def steer(self, data: SteeringSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Writes the intervention's file, `last.safetensors`, and a card into `folder`; the same data, options and seed give
        the same file on one machine. The model computes bit for bit as before afterwards. What a learner keeps there to go
        on after an interruption is called `resume` with any ending."""
        ...
