"""The suite of learners of evaluations: a right one passes, wrong ones are told what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icltool.contracts import EvaluationSet, Progress, TrainingOutcome
from icltool.store.subsets import read_subset, write_subset
from icltool.testing import check_learner, make_evaluation_set, make_training_set
from tests.commands.train.mean_scores import MeanScores


def test_a_right_one_passes(tmp_path: Path) -> None:
    check_learner(MeanScores, tmp_path)
    assert len(read_subset(tmp_path / "first" / "last.json").ids) == 8


def test_the_made_up_set_has_all_that_a_learner_must_bear() -> None:
    data = make_evaluation_set()
    assert data.lists.shape == (40, 3)
    assert len({tuple(row) for row in data.lists.tolist()}) == 40
    assert (data.lists == -1).any()
    assert not (data.lists == len(data.index) - 1).any()
    assert not data.answered[0].any()
    assert 0.6 < data.answered[1:].mean() < 0.9
    assert data.log_probs is not None
    assert {len(own) for own in data.choices} == {2, 3}
    assert np.isnan(data.log_probs[:, [len(own) == 2 for own in data.choices], 2]).all()
    assert not np.intersect1d(data.query_ids, data.index.ids).size


class Unsplit(MeanScores):
    """Does not say from which queries it learned."""

    def train(self, data: EvaluationSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        outcome = super().train(data, folder, seed, progress)
        write_subset(outcome.checkpoints["last"], replace(read_subset(outcome.checkpoints["last"]), queries=None))
        return outcome


class Rows(MeanScores):
    """Writes rows in place of ids."""

    def train(self, data: EvaluationSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        outcome = super().train(data, folder, seed, progress)
        subset = read_subset(outcome.checkpoints["last"])
        write_subset(outcome.checkpoints["last"], replace(subset, scores={-1: 0.0}))
        return outcome


class Empty(MeanScores):
    """Chooses nothing."""

    def __init__(self) -> None:
        super().__init__(size=0)


class Writing(MeanScores):
    """Changes what it is given."""

    def train(self, data: EvaluationSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        data.scores[np.isnan(data.scores)] = 0
        return super().train(data, folder, seed, progress)


class Drawing(MeanScores):
    """Draws without its seed."""

    def train(self, data: EvaluationSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        shuffled = np.random.default_rng().permutation(data.scores.ravel()).reshape(data.scores.shape)
        return super().train(replace(data, scores=shuffled), folder, seed, progress)


class Needy(MeanScores):
    """Asks for what comes with sequences alone."""

    needs = frozenset({"evaluations", "figures"})


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        (Unsplit, AssertionError, "must say that it was learned from train queries, not None"),
        (Rows, AssertionError, "which the index set does not have"),
        (Empty, AssertionError, "is not a subset: .* has no ids"),
        (Writing, ValueError, "read-only"),
        (Drawing, AssertionError, "two runs with one seed"),
        (Needy, AssertionError, "`needs` may hold"),
    ],
)
def test_a_wrong_one_fails(wrong: type[MeanScores], error: type[Exception], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=sentence):
        check_learner(wrong, tmp_path)


def test_a_learner_of_evaluations_is_not_tried_on_sequences(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="must be an EvaluationSet"):
        check_learner(MeanScores, tmp_path, data=make_training_set())
