"""The conformance suite of learners."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from icltool.contracts import EvaluationLearner, EvaluationSet, Learner, TrainingOutcome, TrainingSet
from icltool.contracts.learner import EVALUATIONS, SequenceFigures, reads_evaluations
from icltool.errors import StoreError
from icltool.store.subsets import SCHEMA, read_subset
from icltool.testing.abilities import expect_learning_abilities
from icltool.testing.arrays import ALL_ARRAYS, make_index
from icltool.testing.expectations import built, expect, expect_equal, expect_needs
from icltool.testing.progress import QuietProgress


def make_training_set(count: int = 60, rows: int = 96, shots: int = 2, dim: int = 16, seed: int = 0) -> TrainingSet:
    """`rows` random sequences of `shots` demonstrations from a made-up index set of `count`, four per query; with one shot
    they come from pools of twelve candidates. Has figures; arrays are read-only, so that a learner that writes to them
    fails."""
    rng = np.random.default_rng([seed, count, rows])
    queries = np.repeat(rng.integers(0, count, (rows + 3) // 4), 4)[:rows].astype(np.int64)
    chosen = np.array([rng.permutation(np.delete(np.arange(count), q))[:shots] for q in queries], dtype=np.int64)
    scores, pools = rng.random(rows), None
    if shots == 1:
        others = {q: rng.permutation(np.delete(np.arange(count), q)) for q in dict.fromkeys(queries.tolist())}
        pools = np.array([others[q][:12] for q in queries.tolist()], dtype=np.int64)
        earlier = [int((queries[:row] == q).sum()) for row, q in enumerate(queries.tolist())]
        chosen = np.array([[others[q][k]] for q, k in zip(queries.tolist(), earlier, strict=True)], dtype=np.int64)
    base = -1 - queries / count
    figures = SequenceFigures(base + scores, 3 * (base + scores), base, 3 * base)
    for array in (queries, chosen, scores, *([] if pools is None else [pools]), *astuple(figures)):
        array.setflags(write=False)
    index, provenance = make_index(count, dim, seed), {"dataset": "made up"}
    return TrainingSet(index, queries, chosen, scores, provenance, candidate_rows=pools, figures=figures)


def make_evaluation_set(
    count: int = 60, lists: int = 40, shots: int = 3, queries: int = 12, dim: int = 16, seed: int = 0
) -> EvaluationSet:
    """Made-up answers to `queries` after `lists` distinct lists of up to `shots` of the first `count` - 1 examples; the last
    example is in none. A fifth of the pairs has no answer, and one list has no score at all. Each query has two or three
    choices. Arrays are read-only, so that a learner that writes to them fails."""
    rng = np.random.default_rng([seed, count, lists])
    known: dict[tuple[int, ...], None] = {}
    while len(known) < lists:
        known.setdefault(tuple(rng.permutation(count - 1)[: rng.integers(max(1, shots - 1), shots + 1)].tolist()))
    rows = np.array([[*icds, *[-1] * (shots - len(icds))] for icds in sorted(known)], dtype=np.int64)
    choices = tuple(("red", "green", "blue")[: 2 + d % 2] for d in range(queries))
    log_probs = -rng.random((lists, queries, 3)) * 5
    log_probs[:, [len(own) == 2 for own in choices], 2] = np.nan
    log_probs[rng.random((lists, queries)) < 0.2] = np.nan
    right = rng.integers(0, 2, queries)
    best = np.argmax(np.nan_to_num(log_probs, nan=-np.inf), axis=2)
    scores = np.where(np.isnan(log_probs[:, :, 0]), np.nan, 100.0 * (best == right))
    scores[0] = np.nan
    references = tuple((own[place],) for own, place in zip(choices, right.tolist(), strict=True))
    ids = np.sort(10_000 + rng.permutation(10 * queries)[:queries]).astype(np.int64)
    for array in (rows, log_probs, scores, ids):
        array.setflags(write=False)
    index, provenance = make_index(count, dim, seed), {"dataset": "made up", "queries": "train"}
    return EvaluationSet(index, rows, ids, scores, "accuracy", references, log_probs, choices, provenance)


def check_learner(
    learner: Learner | EvaluationLearner | Callable[[], Learner | EvaluationLearner],
    folder: Path,
    *,
    data: TrainingSet | EvaluationSet | None = None,
    seed: int = 3,
) -> None:
    """Checks a learner (give it few epochs), or a class or factory that makes one, against `icltool.Learner`, or, where
    "evaluations" is in its `needs`, against `icltool.EvaluationLearner`.

    It trains twice on `data` (by default made up), into two sub-folders of `folder`. Checks `needs`; its abilities; that the
    rows of a TrainingSet are ranked by anchor without loss; that each checkpoint, including "last", exists in the right
    folder; a history of figures; that the same seed gives the same weights; and for a learner of evaluations, that a subset
    which it writes is one of the index set, and records that it was learned from train queries. Raises AssertionError with a
    description of the fault.
    """
    expect_learning_abilities(built(learner, "train"), built(learner, "train"))
    if reads_evaluations(built(learner, "train")):
        expect_needs(built(learner, "train"), ALL_ARRAYS | {EVALUATIONS})
        training = data or make_evaluation_set()
        expect(isinstance(training, EvaluationSet), "`data` of a learner of evaluations must be an EvaluationSet")
    else:
        expect_needs(built(learner, "train"), ALL_ARRAYS | {"encoder", "figures"})
        training = data or make_training_set()
        expect(isinstance(training, TrainingSet), "`data` of a learner of sequences must be a TrainingSet")
        assert isinstance(training, TrainingSet)
        _check_by_anchor(training)
    outcomes = []
    for name in ("first", "second"):
        place = folder / name
        place.mkdir(parents=True)
        instance: Any = built(learner, "train")
        outcome = instance.train(training, place, seed, QuietProgress())
        _check_outcome(outcome, place)
        if isinstance(training, EvaluationSet):
            _check_subsets(outcome, training)
        outcomes.append(outcome)
    one, other = outcomes
    expect(
        set(one.checkpoints) == set(other.checkpoints), "two runs with one seed leave checkpoints of different names"
    )
    for name in one.checkpoints:
        weights, again = _weights(Path(one.checkpoints[name])), _weights(Path(other.checkpoints[name]))
        expect(set(weights) == set(again), f"checkpoint {name!r}: two runs with one seed leave different tensors")
        for key, value in weights.items():
            expect_equal(again[key], value, f"checkpoint {name!r}: two runs with one seed differ in {key!r}")


def _check_by_anchor(data: TrainingSet) -> None:
    """Checks that `by_anchor` has each row of the set once, ranked by score."""
    by_anchor = data.by_anchor()
    present = (by_anchor.sets >= 0).any(axis=-1) & ~np.isnan(by_anchor.scores)
    expect_equal(present.sum(), (~np.isnan(data.scores)).sum(), "`by_anchor` has other sequences than the set has rows")
    for place, anchor in enumerate(by_anchor.anchor_rows.tolist()):
        scores = by_anchor.scores[place][present[place]]
        own = data.scores[data.query_rows == anchor]
        expect_equal(scores, np.sort(own[~np.isnan(own)])[::-1], f"the scores of anchor {anchor} are not ranked")


def _check_subsets(outcome: TrainingOutcome, data: EvaluationSet) -> None:
    """Checks that each subset among the checkpoints has ids of the index set, and records the split of its scores."""
    for name, path in outcome.checkpoints.items():
        if Path(path).suffix != ".json" or f'"{SCHEMA}"' not in Path(path).read_text(encoding="utf-8"):
            continue
        try:
            actual = read_subset(Path(path))
        except StoreError as error:
            raise AssertionError(f"checkpoint {name!r} is not a subset: {error.message}") from error
        strange = np.setdiff1d(actual.ids, data.index.ids)
        expect(not len(strange), f"checkpoint {name!r} names {strange[:3].tolist()}, which the index set does not have")
        expect(
            actual.queries == "train",
            f"checkpoint {name!r} must say that it was learned from train queries, not {actual.queries!r}",
        )


def _check_outcome(outcome: TrainingOutcome, folder: Path) -> None:
    expect(isinstance(outcome, TrainingOutcome), f"`train` must return a TrainingOutcome, not {type(outcome).__name__}")
    expect("last" in outcome.checkpoints, f"a checkpoint 'last' is missing among {sorted(outcome.checkpoints)}")
    for name, path in outcome.checkpoints.items():
        expect(Path(path).exists(), f"checkpoint {name!r} is said to be at {path}, where nothing is")
        expect(
            folder.resolve() in Path(path).resolve().parents, f"checkpoint {name!r} lies outside the folder {folder}"
        )
    expect(len(outcome.history) > 0, "`history` must hold one record per validation")
    for record in outcome.history:
        expect(isinstance(record, Mapping) and record, f"a record of `history` must map names to figures: {record!r}")
        for key, value in record.items():
            expect(not math.isinf(float(value)), f"`history`: {key} is {value}")


def _weights(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file (or of all in a folder); the bytes of any other file."""
    if path.is_dir():
        files = sorted(path.rglob("*.safetensors"))
        expect(files, f"checkpoint folder {path} contains no safetensors file")
        return {f"{file.name}:{key}": value for file in files for key, value in _weights(file).items()}
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    return {path.name: np.frombuffer(path.read_bytes(), dtype=np.uint8)}
