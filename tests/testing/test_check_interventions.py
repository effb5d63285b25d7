"""The suites of interventions and their learners: each sentence is broken once, and caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.contracts import Example, Model, TrainingOutcome
from icltool.interventions.files import save_intervention
from icltool.interventions.hooks import changed_outputs
from icltool.interventions.shift import ShiftVectors, shifting
from icltool.learners.live.learner import Live
from icltool.testing import check_intervention, check_steering_learner, make_steering_set
from tests.conftest import Scenery


@pytest.fixture(scope="module")
def examples(scenery: Scenery) -> list[Example]:
    return scenery.mixed(8, seed=11)


@pytest.fixture
def vectors(tiny_model: Any, tmp_path: Path) -> ShiftVectors:
    path = tmp_path / "last.safetensors"
    generator = torch.Generator().manual_seed(1)
    shifts = {"vectors": torch.randn(4, 128, generator=generator), "alphas": torch.full((4,), 2.0)}
    save_intervention(path, "live", tiny_model.base_model(), {"shots": 2}, shifts)
    return ShiftVectors("live", path)


def refuse(intervention: Any, model: Any, examples: list[Example], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_intervention(intervention, model, examples)


def test_a_good_one_passes(vectors: ShiftVectors, tiny_model: Any, examples: list[Example]) -> None:
    check_intervention(vectors, tiny_model, examples)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("method", "", "`method` is a name"),
        ("everywhere", 1, "`everywhere` is true or false"),
        ("file", Path("/nowhere"), "`file` is the file"),
        ("parameters", 0, "`parameters` counts"),
    ],
)
def test_what_it_says_of_itself(
    vectors: ShiftVectors, tiny_model: Any, examples: list[Example], name: str, value: Any, sentence: str
) -> None:
    setattr(vectors, name, value)
    refuse(vectors, tiny_model, examples, sentence)


def test_any_model_taken(vectors: ShiftVectors, tiny_model: Any, examples: list[Example]) -> None:
    vectors.check = lambda model: None  # type: ignore[method-assign]
    refuse(vectors, tiny_model, examples, "refuses a model without hooks")


def with_applied(vectors: ShiftVectors, applied: Callable[[Model], Iterator[None]]) -> ShiftVectors:
    vectors.applied = contextmanager(applied)  # type: ignore[method-assign]
    return vectors


def test_no_change(vectors: ShiftVectors, tiny_model: Any, examples: list[Example]) -> None:
    def applied(model: Model) -> Iterator[None]:
        yield

    refuse(with_applied(vectors, applied), tiny_model, examples, "are those of the model without it")


def test_a_trace_left_behind(vectors: ShiftVectors, tiny_model: Any, examples: list[Example]) -> None:
    kept: list[Any] = []

    def applied(model: Any) -> Iterator[None]:
        kept.append(model.shifted_modules()[0].register_forward_hook(lambda m, i, output: output + 0.5))
        yield

    try:
        refuse(with_applied(vectors, applied), tiny_model, examples, "afterwards scores must be as before")
    finally:
        for handle in kept:
            handle.remove()


def test_a_trace_left_by_an_exception(vectors: ShiftVectors, tiny_model: Any, examples: list[Example]) -> None:
    kept: list[Any] = []

    def applied(model: Any) -> Iterator[None]:
        kept.append(model.shifted_modules()[0].register_forward_hook(lambda m, i, output: output + 0.5))
        yield
        kept.pop().remove()

    try:
        refuse(with_applied(vectors, applied), tiny_model, examples, "after an exception scores must be as before")
    finally:
        for handle in kept:
            handle.remove()


def test_an_exception_swallowed(vectors: ShiftVectors, tiny_model: Any, examples: list[Example]) -> None:
    def applied(model: Any) -> Iterator[None]:
        with shifting(model, lambda layer: torch.ones(128)), suppress(KeyError):
            yield

    refuse(with_applied(vectors, applied), tiny_model, examples, "goes to the caller: it raised nothing")


def test_something_that_depends_on_the_batch(vectors: ShiftVectors, tiny_model: Any, examples: list[Example]) -> None:
    def applied(model: Any) -> Iterator[None]:
        def change(states: torch.Tensor) -> torch.Tensor:
            return states + 0.3 * states.mean(dim=0, keepdim=True)

        with changed_outputs(model.shifted_modules()[:1], [change]):
            yield

    refuse(with_applied(vectors, applied), tiny_model, examples, "under it, scores in batches")


def test_a_change_that_is_not_everywhere(vectors: ShiftVectors, tiny_model: Any, examples: list[Example]) -> None:
    """The first token of a pass is another one where a prompt is computed in parts."""

    def applied(model: Any) -> Iterator[None]:
        def change(states: torch.Tensor) -> torch.Tensor:
            first = torch.zeros_like(states)
            first[:, 0] = 3.0
            return states + first

        with changed_outputs(model.shifted_modules()[:1], [change]):
            yield

    refuse(with_applied(vectors, applied), tiny_model, examples, "under it, (scores from shared|answers depend)")


class Faulty(Live):
    """A learner with one fault."""

    def __init__(self, fault: Callable[[Any, Path, TrainingOutcome], Any]) -> None:
        super().__init__(shots=1, epochs=1, max_train_size=4, batch_size=2)
        self.fault = fault

    def steer(self, data: Any, folder: Path, seed: int, progress: Any) -> Any:
        return self.fault(data, folder, super().steer(data, folder, seed, progress))


def _other_file(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    (folder / "last.safetensors").rename(folder / "best.safetensors")
    return TrainingOutcome({"last": folder / "best.safetensors"}, outcome.history)


def _resumable(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    (folder / "resume.ckpt").touch()
    return outcome


def _chance(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
    tensors = {"vectors": torch.randn(4, 128), "alphas": torch.ones(4)}
    save_intervention(folder / "last.safetensors", "live", data.model.base_model(), {}, tensors)
    return outcome


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda data, folder, outcome: None, "must return a TrainingOutcome"),
        (lambda data, folder, outcome: TrainingOutcome(outcome.checkpoints, ()), "`history` must hold"),
        (lambda data, folder, outcome: TrainingOutcome(outcome.checkpoints, [{"a": float("inf")}]), "infinite figure"),
        (_other_file, "the file must be"),
        (_resumable, "leaves nothing to go on from"),
        (_chance, "files of one identity"),
    ],
)
def test_learners(fault: Any, sentence: str, tiny_model: Any, examples: list[Example], tmp_path: Path) -> None:
    data = make_steering_set(tiny_model, examples)
    with pytest.raises(AssertionError, match=sentence):
        check_steering_learner(lambda: Faulty(fault), lambda file: ShiftVectors("live", file), data, tmp_path)


def test_a_learner_that_changes_the_model(tiny_model: Any, examples: list[Example], tmp_path: Path) -> None:
    kept: list[Any] = []

    def fault(data: Any, folder: Path, outcome: TrainingOutcome) -> TrainingOutcome:
        kept.append(data.model.shifted_modules()[0].register_forward_hook(lambda m, i, output: output + 0.5))
        return outcome

    data = make_steering_set(tiny_model, examples)
    try:
        with pytest.raises(AssertionError, match="leave the model as it was"):
            check_steering_learner(lambda: Faulty(fault), lambda file: ShiftVectors("live", file), data, tmp_path)
    finally:
        for handle in kept:
            handle.remove()
