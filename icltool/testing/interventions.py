"""The conformance suites of what stands in for demonstrations, and of the learners that make it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from icltool.contracts import (
    Example,
    GenerationOptions,
    IndexSet,
    IntArray,
    Intervention,
    Model,
    Prompt,
    ScoringRequest,
    SteeringLearner,
    SteeringSet,
    TrainingOutcome,
    group_code,
    task_named,
)
from icltool.errors import ConfigError
from icltool.testing.expectations import built, expect, expect_equal, expect_error
from icltool.testing.progress import QuietProgress

_BEAMS = GenerationOptions(max_new_tokens=6, num_beams=3)


class InMemoryExamples:
    """Examples by row, as a SteeringSet has them."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = list(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def rows(self, rows: IntArray | Sequence[int]) -> list[Example]:
        """The examples in these rows, in the order given."""
        return [self.examples[int(row)] for row in rows]


def make_steering_set(
    model: Model, examples: Sequence[Example], *, task: str = "caption", batch_size: int = 4, cached: bool = True
) -> SteeringSet:
    """A SteeringSet of these examples. With `cached`, a model that can encodes each image once."""
    known: dict[str, Any] = {}
    encode = getattr(model, "image_features", None) if cached else None

    def features(paths: Sequence[str]) -> Mapping[str, Any] | None:
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
    return SteeringSet(
        model,
        task_named(task),
        InMemoryExamples(examples),
        index,
        features,
        batch_size=batch_size,
        provenance=provenance,
    )


def check_intervention(
    intervention: Intervention,
    model: Model,
    examples: Sequence[Example],
    *,
    task: str = "caption",
    tolerance: float = 1e-4,
) -> None:
    """Checks an intervention against `icltool.Intervention`, on the model that it was made for; AssertionError says what is
    wrong.

    `examples` are four at least, as for `check_model`. Checked are: what it says of itself; that another model is refused;
    that scores change under it and are bit for bit as before afterwards, also where an exception passes; that under it a
    batch of n equals n single runs, for scores and answers; and, where it says `everywhere`, that prompts computed from
    shared keys and values score as whole ones. `tolerance` is in nats.
    """
    _check_told(intervention)
    expect_error(
        ConfigError, lambda: intervention.check(cast(Model, _Unhooked())), "`check` refuses a model without hooks"
    )
    intervention.check(model)
    prompts = [model.prompt(task, examples[1 : 1 + shots], examples[0]) for shots in (0, 0, 1, 2)]
    prompts[1] = model.prompt(task, (), examples[3])
    before = model.score(prompts, len(prompts))
    with intervention.applied(model):
        single = [model.score([prompt], 1)[0].log_prob for prompt in prompts]
        answers = [model.generate([prompt], _BEAMS, 1)[0] for prompt in prompts]
        for size in (2, len(prompts)):
            found = [score.log_prob for score in model.score(prompts, size)]
            expect_equal(found, single, f"under it, scores in batches of {size}", tolerance)
            batch = model.generate(prompts, _BEAMS, size)
            expect(batch == answers, f"under it, answers depend on the batch size: {batch} against {answers}")
    changed = max(abs(a.log_prob - b) for a, b in zip(before, single, strict=True))
    expect(changed > tolerance, "scores under it are those of the model without it")
    _check_undone(intervention, model, prompts, before)
    if intervention.everywhere:
        _check_shared(intervention, model, examples, task, tolerance)


def check_steering_learner(
    learner: SteeringLearner | Callable[[], SteeringLearner],
    intervention: Callable[[Path], Intervention],
    data: SteeringSet,
    folder: Path,
    *,
    seed: int = 3,
) -> Intervention:
    """Checks a learner (give it few examples and epochs), or a class or factory that makes one, against
    `icltool.SteeringLearner`; gives what it made.

    `intervention` reads the file that it leaves. It learns twice, into two sub-folders of `folder`. Checked are: that
    `last.safetensors` lies where it was told, and a history of figures; that the same seed gives the same content; and
    that the model computes bit for bit as before.
    """
    examples = data.examples.rows(range(4))
    prompts = [data.model.prompt(data.task.name, (), example) for example in examples]
    before = data.model.score(prompts, len(prompts))
    made = []
    for name in ("first", "second"):
        place = folder / name
        place.mkdir(parents=True)
        outcome = built(learner, "steer").steer(data, place, seed, QuietProgress())
        _check_outcome(outcome, place)
        expect(data.model.score(prompts, len(prompts)) == before, "`steer` must leave the model as it was, bit for bit")
        made.append(intervention(place / "last.safetensors"))
    expect(made[0].identity() == made[1].identity(), "two runs with one seed must leave files of one identity")
    return made[0]


class _Unhooked:
    """A model without any ability."""

    name = "a model without hooks"


def _check_told(intervention: Intervention) -> None:
    expect(isinstance(intervention, Intervention), f"{type(intervention).__name__} lacks parts of `Intervention`")
    expect(isinstance(intervention.method, str) and intervention.method, "`method` is a name")
    expect(isinstance(intervention.everywhere, bool), "`everywhere` is true or false")
    expect(Path(intervention.file).is_file(), f"`file` is the file that was read, not {intervention.file}")
    expect(isinstance(intervention.parameters, int) and intervention.parameters > 0, "`parameters` counts its numbers")
    json.dumps(dict(intervention.about))
    expect(json.dumps(intervention.identity()) == json.dumps(intervention.identity()), "`identity` does not change")


def _check_undone(intervention: Intervention, model: Model, prompts: Sequence[Prompt], before: Any) -> None:
    expect(model.score(prompts, len(prompts)) == before, "afterwards scores must be as before, bit for bit")

    def failing() -> None:
        with intervention.applied(model):
            model.score(prompts[:1], 1)
            raise KeyError("in the middle")

    expect_error(KeyError, failing, "an exception within `applied` goes to the caller")
    expect(model.score(prompts, len(prompts)) == before, "after an exception scores must be as before, bit for bit")


def _check_shared(
    intervention: Intervention, model: Model, examples: Sequence[Example], task: str, tolerance: float
) -> None:
    from icltool.engine.session import open_session

    requests = [ScoringRequest(query, tuple(examples[1:3])) for query in (examples[0], examples[3])]
    prompts = [model.prompt(task, r.demonstrations, r.query) for r in requests]
    with intervention.applied(model):
        wanted = [score.log_prob for score in model.score(prompts, 1)]
        session = open_session(task, model, _BEAMS, 2, 0)
        found = [score.log_prob for score in session.target_scores(requests)]
    expect_equal(found, wanted, "under it, scores from shared keys and values", tolerance)


def _check_outcome(outcome: TrainingOutcome, folder: Path) -> None:
    expect(isinstance(outcome, TrainingOutcome), f"`steer` must return a TrainingOutcome, not {type(outcome).__name__}")
    last = outcome.checkpoints.get("last")
    expect(last == folder / "last.safetensors" and last.is_file(), f"the file must be {folder / 'last.safetensors'}")
    expect(len(outcome.history) > 0, "`history` must hold a record")
    for record in outcome.history:
        expect(isinstance(record, Mapping) and record, f"a record of `history` must map names to figures: {record!r}")
        expect(all(not math.isinf(float(v)) for v in record.values()), f"`history` holds an infinite figure: {record}")
    left = [path.name for path in folder.iterdir() if path.name.startswith("resume")]
    expect(not left, f"a finished learner leaves nothing to go on from: {left}")
