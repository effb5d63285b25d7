"""The suite of learners that fine-tune models: ours passes, and each sentence is broken once, and caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icltool.components.learners.captioner.learner import Captioner
from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.contracts import Example, TrainingOutcome
from icltool.testing.tuners import check_fine_tuning_learner, make_fine_tuning_set
from tests.components.learners.captioner.model import TinyCaptioner
from tests.components.learners.captioner.overlap import metric
from tests.conftest import Scenery

OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 4, "lr": 1e-2, "schedule": "constant", "select": "loss"}


@pytest.fixture(scope="module")
def sets(scenery: Scenery) -> Callable[[], Any]:
    examples = scenery.mixed(12, seed=11)
    return lambda: make_fine_tuning_set(TinyCaptioner(), examples[:8], examples[8:], metric)


def test_captioner(sets: Any, tmp_path: Path) -> None:
    check_fine_tuning_learner(lambda: Captioner(CaptionerOptions(**OPTIONS)), sets, tmp_path)


class Faulty(Captioner):
    """A learner with one fault."""

    def __init__(self, fault: Callable[[Any, Path, TrainingOutcome], Any]) -> None:
        super().__init__(CaptionerOptions(**{**OPTIONS, "epochs": 1, "batch_size": 2}))
        self.fault = fault

    def tune(self, data: Any, folder: Path, seed: int, progress: Any) -> Any:
        return self.fault(data, folder, super().tune(data, folder, seed, progress))


def _without_card(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    (folder / "README.md").unlink()
    return outcome


def _without_best(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    return TrainingOutcome({"last": folder / "last.safetensors"}, outcome.history)


def _resumable(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    (folder / "resume.ckpt").touch()
    return outcome


def _training(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    data.model.network.train()
    return outcome


def _gradients(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    data.model.network.requires_grad_(True)
    return outcome


def _unsaved(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    with torch.no_grad():
        data.model.network.decoder.transformer.wte.weight.mul_(2)
    return outcome


def _chance(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    if folder.name == "second":
        data.model.save_fine_tuned(folder / "last.safetensors", ["decoder.transformer.wte.weight"], {})
    return outcome


def _forgetful(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    if folder.name == "interrupted":
        data.model.save_fine_tuned(folder / "best.safetensors", ["decoder.transformer.wte.weight"], {})
    return outcome


def _drawing(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    np.random.rand()
    return outcome


def _misnamed(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    data.model.name = "another"
    return outcome


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda data, folder, outcome: None, "must return a TrainingOutcome"),
        (lambda data, folder, outcome: TrainingOutcome(outcome.checkpoints, ()), "`history` must hold"),
        (lambda data, folder, outcome: TrainingOutcome(outcome.checkpoints, [{"a": float("nan")}]), "must be finite"),
        (_without_card, "there must be a card"),
        (_without_best, "checkpoint 'best' must be"),
        (_resumable, "must leave no saved state"),
        (_training, "must be in eval mode"),
        (_gradients, "no parameter may ask for gradients"),
        (_unsaved, "over a fresh model must score as"),
        (_chance, "files of the same content"),
        (_forgetful, "the same content when it is resumed"),
        (_drawing, "numpy's global generator"),
        (_misnamed, "must name model 'another'"),
    ],
)
def test_faults_are_caught(fault: Any, sentence: str, sets: Any, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_fine_tuning_learner(lambda: Faulty(fault), sets, tmp_path)


class Idle:
    """Trains nothing; takes any model."""

    def __init__(self, identity: Any = None) -> None:
        self.value = identity

    def identity(self) -> Any:
        return self.value

    def tune(self, data: Any, folder: Path, seed: int, progress: Any) -> Any:
        return None


@pytest.mark.parametrize(
    ("identity", "sentence"),
    [(np.float32(1), "`identity` must give JSON values"), ({}, "cannot be fine-tuned must be a ConfigError")],
)
def test_identities_and_models_that_cannot_be_fine_tuned(
    identity: Any, sentence: str, sets: Any, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_fine_tuning_learner(lambda: Idle(identity), sets, tmp_path)


def test_examples_are_read_by_row(sets: Any) -> None:
    actual: list[Example] = sets().examples.rows([2, 0])
    assert [e.id for e in actual] == [e.id for e in sets().examples.rows(range(8))[2::-2]]
