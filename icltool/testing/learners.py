"""The conformance suite of learners."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path

import numpy as np

from icltool.contracts import Learner, TrainingOutcome, TrainingSet
from icltool.contracts.learner import SequenceFigures
from icltool.testing.abilities import expect_learning_abilities
from icltool.testing.arrays import ALL_ARRAYS, make_index
from icltool.testing.expectations import built, expect, expect_equal, expect_needs
from icltool.testing.progress import QuietProgress


def make_training_set(count: int = 60, rows: int = 96, shots: int = 2, dim: int = 16, seed: int = 0) -> TrainingSet:
    """`rows` random sequences of `shots` demonstrations over a made-up index set of `count`, four per query, which at one shot
    was searched in twelve candidates. With figures; arrays are read-only, so that a learner that writes into them fails."""
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


def check_learner(
    learner: Learner | Callable[[], Learner], folder: Path, *, data: TrainingSet | None = None, seed: int = 3
) -> None:
    """Checks a learner (give it few epochs), or a class or factory that makes one, against `icltool.Learner`.

    It trains twice on `data` (made up where none is given), into two sub-folders of `folder`. Checked are: `needs`; the
    abilities that it has; that the rows of `data` are ranked by anchor as they stand there, without one lost;
    that each checkpoint exists inside the folder it was told, "last" among them; a history of figures; the same
    weights from the same seed. Raises AssertionError that says what is wrong.
    """
    expect_learning_abilities(built(learner, "train"), built(learner, "train"))
    expect_needs(built(learner, "train"), ALL_ARRAYS | {"encoder", "figures"})
    training = data or make_training_set()
    _check_by_anchor(training)
    outcomes = []
    for name in ("first", "second"):
        place = folder / name
        place.mkdir(parents=True)
        outcome = built(learner, "train").train(training, place, seed, QuietProgress())
        _check_outcome(outcome, place)
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
    """That `by_anchor` has each row of the set once, where its score is that of its rank."""
    told = data.by_anchor()
    shown = (told.sets >= 0).any(axis=-1) & ~np.isnan(told.scores)
    expect_equal(shown.sum(), (~np.isnan(data.scores)).sum(), "`by_anchor` has other sequences than the set has rows")
    for place, anchor in enumerate(told.anchor_rows.tolist()):
        scores = told.scores[place][shown[place]]
        own = data.scores[data.query_rows == anchor]
        expect_equal(scores, np.sort(own[~np.isnan(own)])[::-1], f"the scores of anchor {anchor} are not ranked")


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
        expect(files, f"checkpoint folder {path} holds no safetensors file")
        return {f"{file.name}:{key}": value for file in files for key, value in _weights(file).items()}
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    return {path.name: np.frombuffer(path.read_bytes(), dtype=np.uint8)}
