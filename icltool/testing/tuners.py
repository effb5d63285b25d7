"""The conformance suite of learners that fine-tune a model's own weights, and test data for them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, cast

from icltool.components.tasks import task_named
from icltool.contracts import (
    Example,
    FineTuningLearner,
    FineTuningSet,
    GenerationOptions,
    Metric,
    Model,
    Task,
    TrainingOutcome,
)
from icltool.contracts.fine_tuning import TunableModel
from icltool.errors import ConfigError
from icltool.testing.abilities import expect_learning_abilities
from icltool.testing.expectations import built, expect, expect_error
from icltool.testing.intervention_learners import InMemoryExamples, _generators
from icltool.testing.progress import QuietProgress, QuietTicker

FILES = ("best", "last")
#: Of each file: its header, and its tensors as lists.
_Content: TypeAlias = dict[str, tuple[str, dict[str, object]]]
#: Steps of progress after which a training is interrupted.
INTERRUPTED_AFTER = 3


def make_fine_tuning_set(
    model: Model,
    examples: Sequence[Example],
    development: Sequence[Example],
    metric: Callable[[str], Metric],
    *,
    task: str | Task = "caption",
    generation: GenerationOptions | None = None,
    batch_size: int = 4,
) -> FineTuningSet:
    """A FineTuningSet of these examples; by default answers are searched with three beams of six tokens."""
    return FineTuningSet(
        model=model,
        task=task_named(task) if isinstance(task, str) else task,
        examples=InMemoryExamples(examples),
        development=InMemoryExamples(development),
        metric=metric,
        generation=generation or GenerationOptions(max_new_tokens=6, num_beams=3),
        batch_size=batch_size,
        provenance={"dataset": "in memory", "dataset_fingerprint": "f00d", "icltool": "test"},
    )


class _Untunable:
    """A model that has no network to train."""

    def __init__(self, model: Model) -> None:
        self.name = model.name


class _Interrupting(QuietProgress):
    """Raises KeyboardInterrupt after this many steps."""

    @contextmanager
    def task(self, description: str, total: int, noun: str, done: int = 0) -> Iterator[QuietTicker]:
        with super().task(description, total, noun, done) as ticker:
            yield _InterruptingTicker(ticker.description, ticker.total, ticker.done)


class _InterruptingTicker(QuietTicker):
    _left = INTERRUPTED_AFTER

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        self._left -= amount
        if self._left <= 0:
            raise KeyboardInterrupt


def check_fine_tuning_learner(
    learner: Callable[[], FineTuningLearner],
    data: Callable[[], FineTuningSet],
    folder: Path,
    *,
    seed: int = 3,
) -> FineTuningSet:
    """Checks a learner (a class or factory; give it few epochs, but enough batches to report more than three steps of progress)
    against `icltool.FineTuningLearner`; returns the set whose model it trained first.

    `data` makes a set with an identical fresh model each time. Checks that `last.safetensors`, `best.safetensors` and
    README.md are in the folder, name the model, and come with a history of figures; that a fresh model with the last file
    scores like the trained one, and differently from the untrained one; that the same seed gives the same content, also after
    an interruption; that the network is in eval mode and without gradients afterwards; that global random generators are
    unchanged; that a model that cannot be fine-tuned is a ConfigError and leaves no file; and that `identity`, if there is
    one, is JSON and equal for two learners with the same options.
    """
    expect_learning_abilities(built(learner, "tune"), built(learner, "tune"))
    _check_untunable(built(learner, "tune"), data(), folder / "untunable", seed)
    trained = data()
    before = _scores(trained)
    drawn = _generators()
    first_content = _tune(built(learner, "tune"), trained, folder / "first", seed)
    for library, state in _generators().items():
        expect(state == drawn[library], f"`tune` must leave {library}'s global generator as it was")
    _check_network(trained.model)
    after = _scores(trained)
    expect(after != before, "`tune` must change the model's answers' probabilities")
    fresh = data()
    _apply(fresh.model, folder / "first" / "last.safetensors")
    expect(_scores(fresh) == after, "`last.safetensors` over a fresh model must score as the trained model does")
    again = _tune(built(learner, "tune"), data(), folder / "second", seed)
    expect(first_content == again, "two runs with one seed must leave files of the same content")
    _check_interrupted(learner, data, folder / "interrupted", seed, first_content)
    return trained


def _check_untunable(learner: FineTuningLearner, data: FineTuningSet, folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    bare = replace(data, model=cast(Model, _Untunable(data.model)))
    sentence = "a model that cannot be fine-tuned must be a ConfigError"
    expect_error(ConfigError, lambda: learner.tune(bare, folder, seed, QuietProgress()), sentence)
    left = [path.name for path in folder.iterdir()]
    expect(not left, f"where `tune` raised an error there must be no file: {left}")


def _check_interrupted(
    learner: Callable[[], FineTuningLearner],
    data: Callable[[], FineTuningSet],
    folder: Path,
    seed: int,
    uninterrupted: _Content,
) -> None:
    sentence = "KeyboardInterrupt must end a training"
    folder.mkdir(parents=True)
    expect_error(
        KeyboardInterrupt,
        lambda: built(learner, "tune").tune(data(), folder, seed, _Interrupting()),
        sentence,
    )
    resumed_sentence = "an interrupted training must give the same content when it is resumed"
    expect(_tune(built(learner, "tune"), data(), folder, seed) == uninterrupted, resumed_sentence)


def _tune(learner: FineTuningLearner, data: FineTuningSet, folder: Path, seed: int) -> _Content:
    """Trains; returns the content of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    outcome = learner.tune(data, folder, seed, QuietProgress())
    _check_outcome(outcome, folder)
    return {name: _content(folder / f"{name}.safetensors", data.model) for name in FILES}


def _check_outcome(outcome: TrainingOutcome, folder: Path) -> None:
    expect(isinstance(outcome, TrainingOutcome), f"`tune` must return a TrainingOutcome, not {type(outcome).__name__}")
    for name in FILES:
        file = outcome.checkpoints.get(name)
        expect(
            file == folder / f"{name}.safetensors" and file.is_file(),
            f"checkpoint {name!r} must be {folder / f'{name}.safetensors'}",
        )
    expect((folder / "README.md").is_file(), "there must be a card, README.md")
    expect(len(outcome.history) > 0, "`history` must hold a record")
    for record in outcome.history:
        expect(isinstance(record, Mapping) and record, f"a record of `history` must map names to figures: {record!r}")
        expect(all(math.isfinite(float(v)) for v in record.values()), f"figures in `history` must be finite: {record}")
    left = [path.name for path in folder.iterdir() if path.name.startswith("resume")]
    expect(not left, f"a finished learner must leave no saved state: {left}")


def _content(file: Path, model: Model) -> tuple[str, dict[str, object]]:
    """(header, tensors as lists) of a file of fine-tuned weights."""
    from safetensors.torch import load_file

    from icltool.components.models.shared.fine_tuned import read_fine_tuned

    stored = read_fine_tuned(file)
    expect(stored.model == model.name, f"{file.name} must name model {model.name!r}, not {stored.model!r}")
    header = json.dumps([stored.base_hash, dict(stored.adapter), dict(stored.about)], sort_keys=True)
    return header, {name: tensor.tolist() for name, tensor in load_file(file).items()}


def _apply(model: Model, file: Path) -> None:
    from icltool.components.models.shared.fine_tuned import apply_fine_tuned, read_fine_tuned

    apply_fine_tuned(cast(TunableModel, model).network, read_fine_tuned(file))


def _check_network(model: Model) -> None:
    network = cast(TunableModel, model).network
    training = [name for name, module in network.named_modules() if module.training]
    expect(not training, f"after `tune` all of the network must be in eval mode, not {training[:3]}")
    with_gradients = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    expect(not with_gradients, f"after `tune` no parameter may ask for gradients: {with_gradients[:3]}")


def _scores(data: FineTuningSet) -> list[float]:
    """Log-probabilities of the development examples' labels."""
    examples = data.development.rows(range(len(data.development)))
    prompts = [data.model.prompt(data.task, (), example) for example in examples]
    return [score.log_prob for score in data.model.score(prompts, data.batch_size)]
