"""The suite of interventions: each sentence is broken once, and caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from icltool.components.interventions.files import save_intervention
from icltool.components.interventions.hooks import changed_outputs
from icltool.components.interventions.shift import ShiftVectors
from icltool.components.interventions.stored import StoredOptions
from icltool.contracts import Example, Model, ModelIdentity, SupportsDecoderHooks
from icltool.errors import ConfigError, DataError
from icltool.testing import check_intervention
from tests.conftest import Scenery
from tests.testing.traces import TRACES


@pytest.fixture(scope="module")
def examples(scenery: Scenery) -> list[Example]:
    return scenery.mixed(8, seed=11)


def vectors_of(model: Any, path: Path) -> ShiftVectors:
    base, generator = model.base_model(), torch.Generator().manual_seed(1)
    shifts = torch.randn(base.sites, base.width, generator=generator)
    save_intervention(path, "live", base, {"shots": 2}, {"vectors": shifts, "alphas": torch.full((base.sites,), 2.0)})
    return ShiftVectors(StoredOptions(method="live", file=path))


@pytest.fixture
def vectors(small_idefics: Any, tmp_path: Path) -> ShiftVectors:
    return vectors_of(small_idefics, tmp_path / "last.safetensors")


def refuse(intervention: Any, model: Any, examples: list[Example], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_intervention(intervention, model, examples)


def test_a_good_one_passes(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    check_intervention(vectors, small_idefics, examples)


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
    vectors: ShiftVectors, small_idefics: Any, examples: list[Example], name: str, value: Any, sentence: str
) -> None:
    setattr(vectors, name, value)
    refuse(vectors, small_idefics, examples, sentence)


def test_a_change_however_small_passes(small_idefics: Any, examples: list[Example], tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    shifts = {"vectors": torch.ones(2, 32), "alphas": torch.full((2,), 1e-6)}
    save_intervention(path, "live", small_idefics.base_model(), {}, shifts)
    check_intervention(ShiftVectors(StoredOptions(method="live", file=path)), small_idefics, examples)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("method", "other", "`method` is the file's, 'live'"),
        ("parameters", 1, "how many numbers the file holds"),
        ("about", {"shots": 3}, "`about` is what the file records"),
    ],
)
def test_what_its_file_says(
    vectors: ShiftVectors, small_idefics: Any, examples: list[Example], name: str, value: Any, sentence: str
) -> None:
    setattr(vectors, name, value)
    refuse(vectors, small_idefics, examples, sentence)


def test_a_file_of_its_own_kind(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    torch.save({}, vectors.file)
    refuse(vectors, small_idefics, examples, "one that `save_intervention` writes")


def lenient(base: ModelIdentity, taken: str) -> Callable[[Any], None]:
    """A check of the identity that does not look at `taken`."""
    expected = {"sites": base.sites, "width": base.width, "weights": base.weights}
    expected.pop(taken, None)

    def check(model: Any) -> None:
        if not isinstance(model, SupportsDecoderHooks):
            if taken != "hooks":
                raise ConfigError("no hooks")
            return
        if any(getattr(model.base_model(), key) != value for key, value in expected.items()):
            raise ConfigError("another model")

    return check


@pytest.mark.parametrize("method", ["check", "applied"])
@pytest.mark.parametrize(
    ("taken", "which"),
    [
        ("hooks", "without hooks"),
        ("width", "of another width"),
        ("sites", "of another number of layers"),
        ("weights", "of another weights"),
    ],
)
def test_a_model_that_is_not_its_own(
    vectors: ShiftVectors, small_idefics: Any, examples: list[Example], taken: str, which: str, method: str
) -> None:
    check = lenient(small_idefics.base_model(), taken)
    if method == "check":
        vectors.check = check  # type: ignore[method-assign]
    else:

        @contextmanager
        def applied(model: Any) -> Iterator[None]:
            check(model)
            yield

        vectors.applied = applied  # type: ignore[method-assign]
    refuse(vectors, small_idefics, examples, f"`{method}` refuses a model {which}: it raised nothing")


def adding(model: Any, amount: float) -> AbstractContextManager[None]:
    """Within it a number is added to the first entry of every token's state, in the first layer."""
    shift = torch.eye(1, 32)[0] * amount
    return changed_outputs(model.shifted_modules()[:1], [lambda states: states + shift])


def with_applied(vectors: ShiftVectors, applied: Callable[[Model], Iterator[None]]) -> ShiftVectors:
    def checked(model: Model) -> Iterator[None]:
        vectors.check(model)
        yield from applied(model)

    vectors.applied = contextmanager(checked)  # type: ignore[method-assign]
    return vectors


def test_no_change(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    def applied(model: Model) -> Iterator[None]:
        yield

    refuse(with_applied(vectors, applied), small_idefics, examples, "are those of the model without it")


def test_a_trace_left_behind(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    references: list[Any] = []

    def applied(model: Any) -> Iterator[None]:
        references.append(model.shifted_modules()[0].register_forward_hook(lambda m, i, output: output + 0.5))
        yield

    try:
        refuse(with_applied(vectors, applied), small_idefics, examples, "afterwards scores must be as before")
    finally:
        for handle in references:
            handle.remove()


def test_a_trace_saved_state_an_exception(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    references: list[Any] = []

    def applied(model: Any) -> Iterator[None]:
        references.append(model.shifted_modules()[0].register_forward_hook(lambda m, i, output: output + 0.5))
        yield
        references.pop().remove()

    try:
        refuse(with_applied(vectors, applied), small_idefics, examples, "after an exception scores must be as before")
    finally:
        for handle in references:
            handle.remove()


@pytest.mark.parametrize("when", ["afterwards", "after an exception", "after a failed forward pass"])
@pytest.mark.parametrize(("leave", "where"), TRACES)
def test_a_trace_that_changes_no_score(
    vectors: ShiftVectors, small_idefics: Any, examples: list[Example], leave: Any, where: str, when: str
) -> None:
    references: list[Callable[[], None]] = []

    def applied(model: Any) -> Iterator[None]:
        raised: Exception | None = None
        with adding(model, 1.0):
            try:
                yield
            except Exception as error:
                raised = error
        moment = {type(None): "afterwards", KeyError: "after an exception"}
        if not references and moment.get(type(raised), "after a failed forward pass") == when:
            references.append(leave(model))
        if raised is not None:
            raise raised

    try:
        refuse(with_applied(vectors, applied), small_idefics, examples, f"^{when}, {where}")
    finally:
        for undo in references:
            undo()


def test_a_failed_pass_that_swallows_its_exception(
    vectors: ShiftVectors, small_idefics: Any, examples: list[Example]
) -> None:
    def applied(model: Any) -> Iterator[None]:
        with adding(model, 1.0):
            try:
                yield
            except KeyError:
                raise
            except Exception:
                return

    refuse(with_applied(vectors, applied), small_idefics, examples, "leaves `applied`: it raised nothing")


def test_something_that_a_failed_pass_puts_out_of_step(
    tiny_model: Any, examples: list[Example], tmp_path: Path
) -> None:
    """The pass fails in a layer between the first and the last: two layers are too few."""
    vectors = vectors_of(tiny_model, tmp_path / "last.safetensors")

    def applied(model: Any) -> Iterator[None]:
        within = [0]

        def enter(states: torch.Tensor) -> torch.Tensor:
            within[0] += 1
            return states + within[0]

        def leave(states: torch.Tensor) -> torch.Tensor:
            within[0] -= 1
            return states

        modules = model.shifted_modules()
        with changed_outputs([modules[0], modules[-1]], [enter, leave]):
            yield

    refuse(with_applied(vectors, applied), tiny_model, examples, "under it, scores after a failed forward pass")


def test_a_model_whose_exceptions_vanish(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    def applied(model: Any) -> Iterator[None]:
        plain = model.score

        def score(prompts: Any, batch_size: int, features: Any = None) -> Any:
            try:
                return plain(prompts, batch_size, features)
            except DataError:
                return []

        with adding(model, 1.0):
            model.score = score
            try:
                yield
            finally:
                del model.score

    refuse(with_applied(vectors, applied), small_idefics, examples, "what a forward pass raises goes to the caller")


def test_another_result_the_second_time(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    times = [0]

    def applied(model: Any) -> Iterator[None]:
        times[0] += 1
        with adding(model, times[0]):
            yield

    refuse(with_applied(vectors, applied), small_idefics, examples, "applied again")


def test_scores_that_are_no_numbers(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    def applied(model: Any) -> Iterator[None]:
        with changed_outputs(model.shifted_modules()[:1], [lambda states: states * float("nan")]):
            yield

    refuse(with_applied(vectors, applied), small_idefics, examples, "a score is not a number")


def test_an_exception_swallowed(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    def applied(model: Any) -> Iterator[None]:
        with adding(model, 1.0), suppress(KeyError):
            yield

    refuse(with_applied(vectors, applied), small_idefics, examples, "goes to the caller: it raised nothing")


def test_something_that_depends_on_the_batch(
    vectors: ShiftVectors, small_idefics: Any, examples: list[Example]
) -> None:
    def applied(model: Any) -> Iterator[None]:
        def change(states: torch.Tensor) -> torch.Tensor:
            return states + 0.3 * states.mean(dim=0, keepdim=True)

        with changed_outputs(model.shifted_modules()[:1], [change]):
            yield

    refuse(with_applied(vectors, applied), small_idefics, examples, "under it, scores in batches")


def test_a_change_that_is_not_everywhere(vectors: ShiftVectors, small_idefics: Any, examples: list[Example]) -> None:
    """The first token of a pass is another one where a prompt is computed in parts."""

    def applied(model: Any) -> Iterator[None]:
        def change(states: torch.Tensor) -> torch.Tensor:
            first = torch.zeros_like(states)
            first[:, 0] = 3.0
            return states + first

        with changed_outputs(model.shifted_modules()[:1], [change]):
            yield

    refuse(
        with_applied(vectors, applied), small_idefics, examples, r"under it, (prompts computed in parts|answers depend)"
    )
