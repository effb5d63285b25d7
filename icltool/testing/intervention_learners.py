"""The conformance suite of intervention learners, and test data for them."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from icltool.components.tasks import task_named
from icltool.contracts import (
    Example,
    Features,
    IndexSet,
    IntArray,
    Intervention,
    InterventionLearner,
    InterventionSet,
    Model,
    SupportsDecoderHooks,
    SupportsImageCache,
    TrainingOutcome,
    group_code,
)
from icltool.errors import ConfigError
from icltool.testing.abilities import expect_learning_abilities
from icltool.testing.expectations import built, expect, expect_error
from icltool.testing.interventions import Unhooked, expect_untouched, stored_in, traces
from icltool.testing.progress import QuietProgress

if TYPE_CHECKING:
    from torch import Tensor


class InMemoryExamples:
    """Examples by row, as in an InterventionSet."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = list(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def rows(self, rows: IntArray | Sequence[int]) -> list[Example]:
        """The examples in these rows, in this order."""
        return [self.examples[int(row)] for row in rows]


def make_intervention_set(
    model: Model, examples: Sequence[Example], *, task: str = "caption", batch_size: int = 4, cached: bool = True
) -> InterventionSet:
    """An InterventionSet of these examples. With `cached`, each image is encoded once if the model supports it."""
    known: dict[str, Tensor] = {}
    encode = model.image_features if cached and isinstance(model, SupportsImageCache) else None

    def features(paths: Sequence[str]) -> Features:
        if encode is None:
            return None
        missing = [path for path in dict.fromkeys(paths) if path not in known]
        if missing:
            known.update(zip(missing, encode(missing, batch_size), strict=True))
        return {path: known[path] for path in paths}

    index = IndexSet(
        np.array([e.id for e in examples], dtype=np.int64),
        np.array([e.image_id for e in examples], dtype=np.int64),
        np.array([group_code(e.group) for e in examples], dtype=np.int64),
    )
    provenance = {"dataset": "in memory", "dataset_fingerprint": "f00d", "icltool": "test"}
    return InterventionSet(
        model,
        task_named(task),
        InMemoryExamples(examples),
        index,
        features,
        batch_size=batch_size,
        provenance=provenance,
    )


def check_intervention_learner(
    learner: InterventionLearner | Callable[[], InterventionLearner],
    intervention: Callable[[Path], Intervention],
    data: InterventionSet,
    folder: Path,
    *,
    seed: int = 3,
) -> Intervention:
    """Checks a learner (give it few examples and epochs), or a class or factory that makes one, against
    `icltool.InterventionLearner`; returns the learned intervention.

    `intervention` reads the file that the learner writes. It learns twice, into sub-folders of `folder`. Checks that
    `last.safetensors` is in the right folder, names its method and model, and comes with a history of figures; that the same
    seed gives the same content; that the model's results, hooks, methods and `requires_grad` of its weights are unchanged;
    that global random generators are unchanged; that a model without hooks is a ConfigError and leaves no file; and that
    `identity`, if there is one, is JSON and equal for two learners with the same options.
    """
    expect_learning_abilities(built(learner, "learn_intervention"), built(learner, "learn_intervention"))
    _check_unhooked(built(learner, "learn_intervention"), data, folder / "unhooked", seed)
    examples = data.examples.rows(range(4))
    prompts = [data.model.prompt(data.task, (), example) for example in examples]
    before, untouched, drawn = data.model.score(prompts, len(prompts)), traces(data.model), _generators()
    interventions = []
    for name in ("first", "second"):
        place = folder / name
        place.mkdir(parents=True)
        outcome = built(learner, "learn_intervention").learn_intervention(data, place, seed, QuietProgress())
        _check_outcome(outcome, place)
        expect(
            data.model.score(prompts, len(prompts)) == before,
            "`learn_intervention` must leave the model as it was, bit for bit",
        )
        expect_untouched(data.model, untouched, "after `learn_intervention`")
        for library, state in _generators().items():
            expect(state == drawn[library], f"`learn_intervention` must leave {library}'s global generator as it was")
        interventions.append(_read(intervention, place / "last.safetensors", data.model))
    expect(
        interventions[0].identity() == interventions[1].identity(),
        "two runs with one seed must leave files of one identity",
    )
    return interventions[0]


def _check_unhooked(learner: InterventionLearner, data: InterventionSet, folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    bare = replace(data, model=cast(Model, Unhooked(data.model)))
    sentence = "a model without hooks must be a ConfigError"
    expect_error(ConfigError, lambda: learner.learn_intervention(bare, folder, seed, QuietProgress()), sentence)
    expect(
        not (folder / "last.safetensors").exists(), "where `learn_intervention` raised an error there must be no file"
    )


def _generators() -> dict[str, object]:
    """The states of global random generators, by library."""
    import torch

    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": pickle.dumps(np.random.get_state()),
        "python": random.getstate(),
    }


def _read(intervention: Callable[[Path], Intervention], path: Path, model: Model) -> Intervention:
    loaded, stored = intervention(path), stored_in(path)
    base = cast(SupportsDecoderHooks, model).base_model()
    expect(stored.base == base, f"the file must name the model that it was made for: {stored.base} against {base}")
    expect(
        stored.method == loaded.method,
        f"the file was made by {stored.method!r}, and {loaded.method!r} reads it",
    )
    return loaded


def _check_outcome(outcome: TrainingOutcome, folder: Path) -> None:
    expect(
        isinstance(outcome, TrainingOutcome),
        f"`learn_intervention` must return a TrainingOutcome, not {type(outcome).__name__}",
    )
    last = outcome.checkpoints.get("last")
    expect(last == folder / "last.safetensors" and last.is_file(), f"the file must be {folder / 'last.safetensors'}")
    expect(len(outcome.history) > 0, "`history` must hold a record")
    for record in outcome.history:
        expect(isinstance(record, Mapping) and record, f"a record of `history` must map names to figures: {record!r}")
        expect(all(not math.isinf(float(v)) for v in record.values()), f"`history` holds an infinite figure: {record}")
    left = [path.name for path in folder.iterdir() if path.name.startswith("resume")]
    expect(not left, f"a finished learner must leave no saved state: {left}")
