"""The conformance suite of learners."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from icltool.contracts import Learner, TrainingOutcome, TrainingSet
from icltool.testing.arrays import ALL_ARRAYS, make_index
from icltool.testing.expectations import built, expect, expect_equal, expect_needs
from icltool.testing.progress import QuietProgress


def make_training_set(count: int = 60, rows: int = 96, shots: int = 2, dim: int = 16, seed: int = 0) -> TrainingSet:
    """`rows` random sequences of `shots` demonstrations over a made-up index set of `count`, four per query."""
    rng = np.random.default_rng([seed, count, rows])
    queries = np.repeat(rng.integers(0, count, (rows + 3) // 4), 4)[:rows].astype(np.int64)
    chosen = np.array([rng.permutation(np.delete(np.arange(count), q))[:shots] for q in queries], dtype=np.int64)
    return TrainingSet(make_index(count, dim, seed), queries, chosen, rng.random(rows), {"dataset": "made up"})


def check_learner(
    learner: Learner | Callable[[], Learner], folder: Path, *, data: TrainingSet | None = None, seed: int = 3
) -> None:
    """Checks a learner (give it few epochs), or a class or factory that makes one, against `icltool.Learner`.

    It trains twice on `data` (made up where none is given), into two sub-folders of `folder`. Checked are: `needs`;
    that each checkpoint exists inside the folder it was told, "last" among them; a history of figures; the same
    weights from the same seed. Raises AssertionError that says what is wrong.
    """
    expect_needs(built(learner, "train"), ALL_ARRAYS | {"encoder"})
    training = data or make_training_set()
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
