"""The suite of learners that make interventions: each sentence is broken once, and caught."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icltool.components.interventions.files import save_intervention
from icltool.components.interventions.shift import ShiftVectors
from icltool.components.interventions.stored import StoredOptions
from icltool.components.learners.live.learner import Live
from icltool.components.learners.live.options import LiveOptions
from icltool.contracts import Example, TrainingOutcome
from icltool.testing import check_intervention_learner, make_intervention_set
from tests.conftest import Scenery
from tests.testing.traces import TRACES


@pytest.fixture(scope="module")
def examples(scenery: Scenery) -> list[Example]:
    return scenery.mixed(8, seed=11)


class Faulty(Live):
    """A learner with one fault."""

    def __init__(self, fault: Callable[[Any, Path, TrainingOutcome], Any]) -> None:
        super().__init__(LiveOptions(shots=1, epochs=1, max_train_size=4, batch_size=2))
        self.fault = fault

    def learn_intervention(self, data: Any, folder: Path, seed: int, progress: Any) -> Any:
        return self.fault(data, folder, super().learn_intervention(data, folder, seed, progress))


def _other_file(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    (folder / "last.safetensors").rename(folder / "best.safetensors")
    return TrainingOutcome({"last": folder / "best.safetensors"}, outcome.history)


def _resumable(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    (folder / "resume.ckpt").touch()
    return outcome


def _chance(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    noise = torch.randn(2, 32, generator=torch.Generator().manual_seed(len(folder.name)))  # "first" and "second"
    tensors = {"vectors": noise, "alphas": torch.ones(2)}
    save_intervention(folder / "last.safetensors", "live", data.model.base_model(), {}, tensors)
    return outcome


def _other_model(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    tensors = {"vectors": torch.ones(2, 32), "alphas": torch.ones(2)}
    base = replace(data.model.base_model(), name="another")
    save_intervention(folder / "last.safetensors", "live", base, {}, tensors)
    return outcome


def _seeding(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    torch.manual_seed(3)
    return outcome


def _drawing(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    np.random.rand()
    return outcome


def _choosing(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    random.random()
    return outcome


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda data, folder, outcome: None, "must return a TrainingOutcome"),
        (lambda data, folder, outcome: TrainingOutcome(outcome.checkpoints, ()), "`history` must hold"),
        (lambda data, folder, outcome: TrainingOutcome(outcome.checkpoints, [{"a": float("inf")}]), "infinite figure"),
        (_other_file, "the file must be"),
        (_resumable, "must leave no saved state"),
        (_chance, "files of one identity"),
        (_other_model, "must name the model that it was made for"),
        (_seeding, "torch's global generator"),
        (_drawing, "numpy's global generator"),
        (_choosing, "python's global generator"),
    ],
)
def test_learners(fault: Any, sentence: str, small_idefics: Any, examples: list[Example], tmp_path: Path) -> None:
    data = make_intervention_set(small_idefics, examples)
    with pytest.raises(AssertionError, match=sentence):
        check_intervention_learner(
            lambda: Faulty(fault), lambda file: ShiftVectors(StoredOptions(method="live", file=file)), data, tmp_path
        )


@pytest.mark.parametrize(("leave", "where"), TRACES)
def test_a_learner_that_leaves_traces(
    leave: Any, where: str, small_idefics: Any, examples: list[Example], tmp_path: Path
) -> None:
    references: list[Callable[[], None]] = []

    def fault(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
        references.append(leave(data.model))
        return outcome

    data = make_intervention_set(small_idefics, examples)
    try:
        with pytest.raises(AssertionError, match=f"^after `learn_intervention`, {where}"):
            check_intervention_learner(
                lambda: Faulty(fault),
                lambda file: ShiftVectors(StoredOptions(method="live", file=file)),
                data,
                tmp_path,
            )
    finally:
        for undo in references:
            undo()


def test_a_file_that_another_method_reads(small_idefics: Any, examples: list[Example], tmp_path: Path) -> None:
    def reading(file: Path) -> ShiftVectors:
        read = ShiftVectors(StoredOptions(method="live", file=file))
        read.method = "other"
        return read

    data = make_intervention_set(small_idefics, examples)
    with pytest.raises(AssertionError, match="was made by 'live', and 'other' reads it"):
        check_intervention_learner(lambda: Faulty(lambda data, folder, outcome: outcome), reading, data, tmp_path)


class WithIdentity:
    """A learner with this identity; each instance is another one."""

    count = 0

    def __init__(self, options: Callable[[int], Any]) -> None:
        WithIdentity.count += 1
        self.number, self.options = WithIdentity.count, options

    def identity(self) -> Any:
        return self.options(self.number)

    def learn_intervention(self, data: Any, folder: Path, seed: int, progress: Any) -> Any:
        """Takes any model."""
        return None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (lambda number: {"rate": np.float32(1)}, "`identity` must give JSON values"),
        (lambda number: {"number": number}, "`identity` must be the same"),
        (lambda number: {}, "a model without hooks must be a ConfigError: it raised nothing"),
    ],
)
def test_identities_and_models_without_hooks(
    options: Any, sentence: str, small_idefics: Any, examples: list[Example], tmp_path: Path
) -> None:
    data = make_intervention_set(small_idefics, examples)
    with pytest.raises(AssertionError, match=sentence):
        check_intervention_learner(
            lambda: WithIdentity(options),
            lambda file: ShiftVectors(StoredOptions(method="live", file=file)),
            data,
            tmp_path,
        )


def test_a_file_in_spite_of_an_error(small_idefics: Any, examples: list[Example], tmp_path: Path) -> None:
    class Hasty(Live):
        def learn_intervention(self, data: Any, folder: Path, seed: int, progress: Any) -> Any:
            (folder / "last.safetensors").touch()
            return super().learn_intervention(data, folder, seed, progress)

    data = make_intervention_set(small_idefics, examples)
    with pytest.raises(AssertionError, match="there must be no file"):
        check_intervention_learner(
            lambda: Hasty(LiveOptions(shots=1)),
            lambda file: ShiftVectors(StoredOptions(method="live", file=file)),
            data,
            tmp_path,
        )


def test_a_learner_that_changes_the_model(small_idefics: Any, examples: list[Example], tmp_path: Path) -> None:
    references: list[Any] = []

    def fault(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
        references.append(data.model.shifted_modules()[0].register_forward_hook(lambda m, i, output: output + 0.5))
        return outcome

    data = make_intervention_set(small_idefics, examples)
    try:
        with pytest.raises(AssertionError, match="leave the model as it was"):
            check_intervention_learner(
                lambda: Faulty(fault),
                lambda file: ShiftVectors(StoredOptions(method="live", file=file)),
                data,
                tmp_path,
            )
    finally:
        for handle in references:
            handle.remove()
