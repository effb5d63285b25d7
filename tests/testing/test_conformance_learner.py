"""The Lever-LM learner passes the suite of learners, and the retriever that reads its checkpoints its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from icltool.contracts import AnchorScores, Progress, TrainingOutcome, TrainingSet
from icltool.plugin.manager import component
from icltool.testing import QuietProgress, check_learner, check_retriever, make_training_set

OPTIONS = {"epochs": 1, "n_embd": 16, "n_head": 2, "n_layer": 1, "batch_size": 32}


@pytest.mark.parametrize("network", ["gpt2", "lstm"])
def test_lever_lm_conforms(network: str, tmp_path: Path) -> None:
    check_learner(lambda: component("learners", "lever-lm", network=network, **OPTIONS), tmp_path)


def test_the_lever_lm_retriever_conforms(tmp_path: Path) -> None:
    data = make_training_set()
    component("learners", "lever-lm", **OPTIONS).train(data, tmp_path, 0, QuietProgress())
    retriever = component("retrievers", "lever-lm", folder=str(tmp_path), device="cpu")
    check_retriever(retriever, index=data.index)


class Careless:
    """Reads the rows of its set in their own order, and leaves them ranked."""

    needs = frozenset({"figures"})

    def train(self, data: TrainingSet, folder: Path, seed: int, progress: Progress) -> TrainingOutcome:
        data.scores.sort()
        raise NotImplementedError


def test_a_learner_that_writes_into_its_set_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        check_learner(Careless, tmp_path, data=make_training_set(shots=1))


def test_a_set_whose_rows_cannot_be_ranked_by_anchor_is_no_set(tmp_path: Path) -> None:
    data = make_training_set(shots=1)
    assert data.by_anchor().candidate_rows.shape == (len(np.unique(data.query_rows)), 12)
    twice = _Unranked(**vars(data))
    with pytest.raises(AssertionError, match="are not ranked"):
        check_learner(Careless, tmp_path, data=twice)


class _Unranked(TrainingSet):
    """A set that ranks the other way round."""

    def by_anchor(self) -> AnchorScores:
        anchors = super().by_anchor()
        return replace(anchors, scores=anchors.scores[:, ::-1], sets=anchors.sets[:, ::-1])
