"""Learners train selectors, which choose demonstrations, and interventions, which take their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeGuard, runtime_checkable

import numpy as np

from icltool.contracts.arrays import BoolArray, Float64Array, IndexSet, IntArray
from icltool.contracts.encoder import TrainableEncoder
from icltool.contracts.model import Features, Model
from icltool.contracts.progress import Progress
from icltool.contracts.records import Example
from icltool.contracts.task import Task

#: The entry in the `needs` of a learner that reads stored evaluations.
EVALUATIONS = "evaluations"


@dataclass(frozen=True)
class AnchorScores:
    """The content of a sequences file for each of A anchors: up to B sequences of K demonstrations, the highest score
    first.

    `anchor_rows` int64 [A] are rows of the index set, ascending, and `sets` int64 [A, B, K] rows of demonstrations in
    prompt order, padded with -1 on the right of a shorter sequence and for anchors with fewer sequences. float64 [A, B]:
    `scores`, the scorer's `values` f(S, x), and `log_probs`, the target's summed log-probability in nats; NaN if there is
    no sequence or no such figure. `base_values` and `base_log_probs` float64 [A] are those without demonstrations. Equal
    scores are in the file's order.

    With one demonstration (K = 1), the candidates that the search did not keep follow those that it kept, in sampled order,
    with NaN for their figures. A search keeps `--beam-size` of its `--candidates`, so all have figures if the two are
    equal.
    """

    anchor_rows: IntArray
    sets: IntArray
    scores: Float64Array
    values: Float64Array
    log_probs: Float64Array
    base_values: Float64Array
    base_log_probs: Float64Array

    @property
    def candidate_rows(self) -> IntArray:
        """int64 [A, C]: `sets` without its last axis. ValueError unless sequences have one demonstration."""
        if self.sets.shape[2] != 1:
            raise ValueError(f"candidates are those of one-shot sequences, and these have {self.sets.shape[2]} shots")
        rows: IntArray = self.sets[:, :, 0]
        return rows


@dataclass(frozen=True)
class SequenceFigures:
    """The scorer's figures for each of R sequences, and for its anchor without demonstrations.

    All float64 [R]: values f(S, x) and f((), x), and the target's summed log-probabilities in nats, NaN if the scorer
    computes none.
    """

    values: Float64Array
    log_probs: Float64Array
    base_values: Float64Array
    base_log_probs: Float64Array


@dataclass(frozen=True)
class TrainingSet:
    """Generated sequences with the index set that they refer to.

    R rows of K demonstrations: `query_rows` int64 [R] and `icd_rows` int64 [R, K] are rows of `index` (ICDs in prompt
    order, -1 on the right of a shorter sequence), `scores` float64 [R]. `candidate_rows` int64 [R, C] is the pool in which
    each row's sequence was searched (-1 on the right of a smaller pool), None if unknown. The arrays of `index` hold the
    embeddings that the learner's `needs` ask for. `provenance` goes into the checkpoint's card (dataset, fingerprint,
    encoder, sequences file, versions). `encoder` is the encoder of the embeddings, on the CPU, and `figures` holds the
    scorer's figures of each row; both are filled for a learner that has them in its `needs`.
    """

    index: IndexSet
    query_rows: IntArray
    icd_rows: IntArray
    scores: Float64Array
    provenance: Mapping[str, object] = field(default_factory=dict)
    candidate_rows: IntArray | None = None
    encoder: TrainableEncoder | None = None
    figures: SequenceFigures | None = None

    def by_anchor(self) -> AnchorScores:
        """The rows by anchor, ranked. Do not rely on the order of the rows themselves: the search orders near ties
        arbitrarily."""
        anchors, first, place = np.unique(self.query_rows, return_index=True, return_inverse=True)
        sets, unknown = self.icd_rows, np.full(len(self.scores), np.nan)
        known = self.figures or SequenceFigures(unknown, unknown, unknown, unknown)
        columns = [self.scores, known.values, known.log_probs]
        if sets.shape[1] == 1 and self.candidate_rows is not None:
            pools, size = self.candidate_rows[first], len(self.index)
            own = np.isin(np.arange(len(anchors))[:, None] * size + pools, place * size + sets[:, 0])
            lacking = np.nonzero((pools >= 0) & ~own)
            sets, place = np.concatenate([sets, pools[lacking][:, None]]), np.concatenate([place, lacking[0]])
            columns = [np.append(figures, np.full(len(lacking[0]), np.nan)) for figures in columns]
        order = np.lexsort((-columns[0], place))  # stable, NaN last
        counts = np.bincount(place, minlength=len(anchors))
        within = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        at, shape = (place[order], within), (len(anchors), int(counts.max(initial=0)))
        ranked = np.full((*shape, sets.shape[1]), -1, dtype=np.int64)
        ranked[at] = sets[order]
        scores, values, log_probs = (np.full(shape, np.nan) for _ in columns)
        for table, column in zip((scores, values, log_probs), columns, strict=True):
            table[at] = column[order]
        base_values, base_log_probs = known.base_values[first], known.base_log_probs[first]
        return AnchorScores(anchors.astype(np.int64), ranked, scores, values, log_probs, base_values, base_log_probs)


@dataclass(frozen=True)
class EvaluationSet:
    """Stored evaluations of D train queries: how a frozen model answered each after S distinct lists of demonstrations.

    `lists` int64 [S, K] are rows of `index` in prompt order, -1 on the right of a shorter list. `query_ids` int64 [D],
    ascending, are of the same split; no query is in a list that it was shown. `scores` float64 [S, D] are by `metric`,
    scaled as in tables (such as percent); NaN if the list was not shown to the query, or the metric gave no number. For
    tasks that rank choices, `choices` has the Y_d choices of each query and `log_probs` float64 [S, D, Y] the mean
    log-probability per token of each in nats, in that order; NaN if the list was not shown, and from Y_d on. Other tasks
    have () and None. `references` are the right answers of each query. The arrays of `index` hold what the learner's
    `needs` ask for, and `provenance` goes into what it writes.
    """

    index: IndexSet
    lists: IntArray
    query_ids: IntArray
    scores: Float64Array
    metric: str
    references: tuple[tuple[str, ...], ...]
    log_probs: Float64Array | None = None
    choices: tuple[tuple[str, ...], ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)

    @property
    def answered(self) -> BoolArray:
        """bool [S, D]: whether there is a score for the list and the query."""
        answered: BoolArray = ~np.isnan(self.scores)
        return answered


@dataclass(frozen=True)
class TrainingOutcome:
    """The result of a training: checkpoint files by name (last, min_vl, min_tl), and one record of figures per
    validation."""

    checkpoints: Mapping[str, Path]
    history: Sequence[Mapping[str, float]]


@runtime_checkable
class Learner(Protocol):
    """Trains and writes checkpoints into a folder. Built from its own options by the registry.

    `needs` is a subset of {"image", "text", "texts", "images", "encoder", "figures"}: the arrays of the index set that must
    be filled, the encoder of the embeddings, to be trained along, and the scorer's figures besides the scores. See
    HasIdentity and HasVariant for its optional parts; without an identity, the user's options decide whether a finished
    training is up to date.
    """

    needs: frozenset[str]

    def train(self, data: TrainingSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Trains on `data`; the same data, options and seed give the same weights on one machine."""
        ...


class EvaluationLearner(Protocol):
    """Learns from stored evaluations. Built from its own options by the registry.

    "evaluations" is in its `needs`, besides the arrays of the index set that must be filled: "image", "text", "texts",
    "images", "labels". A learner that chooses a subset of the index set writes it with `icltool.write_subset`, and `icltool
    evaluate --index-subset` restricts all methods to it. It may have an identity and a variant, as a Learner may.
    """

    needs: frozenset[str]

    def train(self, data: EvaluationSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Learns from `data`; the same data, options and seed give the same files on one machine."""
        ...


def reads_evaluations(learner: object) -> TypeGuard[EvaluationLearner]:
    """Whether a learner reads stored evaluations."""
    return EVALUATIONS in getattr(learner, "needs", ())


@runtime_checkable
class HasVariant(Protocol):
    """A learner of selectors whose variant distinguishes trainings on the same data, beside their digests."""

    @property
    def variant(self) -> str:
        """The part of the checkpoint folder's name."""
        ...


class Examples(Protocol):
    """Examples by row, read on access."""

    def __len__(self) -> int: ...

    def rows(self, rows: IntArray | Sequence[int]) -> list[Example]:
        """The examples in these rows, in the order given."""
        ...


@dataclass(frozen=True)
class InterventionSet:
    """The frozen LVLM, and the labelled examples that an intervention is learned from. `index` has the same rows as
    `examples`, with what the leak guard compares. `features` maps image paths to the features that `Model.score` takes;
    None if the model encodes images within each prompt. `batch_size` is the number of prompts per batch without gradients.
    `expect` announces image paths in the order in which they will be needed. `provenance` goes into the card.
    """

    model: Model
    task: Task
    examples: Examples
    index: IndexSet
    features: Callable[[Sequence[str]], Features]
    batch_size: int = 8
    expect: Callable[[Iterable[str]], None] = lambda paths: None
    provenance: Mapping[str, object] = field(default_factory=dict)


@runtime_checkable
class InterventionLearner(Protocol):
    """Learns an intervention (see `icltool.contracts.intervention`) from examples and the LVLM itself. Built from its own
    options by the registry; the intervention of the same name reads its file.

    The file must be one that `icltool.write_intervention` writes, with a card beside it (`icltool.save_intervention` writes
    the file alone): `icltool evaluate` reads method, model and data from its header. `icltool.about_intervention` gives the
    keys of that record that come from the InterventionSet. `icltool.hooked_model` gives the set's model, or raises
    ConfigError if it has no hooks. It may have an identity (HasIdentity).
    """

    def learn_intervention(self, data: InterventionSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        """Writes the intervention's file, `last.safetensors`, and a card into `folder`; the same data, options and seed give
        the same file on one machine. Afterwards the model computes bit for bit as before. The state that a learner keeps
        there to resume is called `resume` with any suffix."""
        ...
