"""FineTuningSets of small images in memory, and trainings on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from icltool.components.learners.captioner.learner import Captioner
from icltool.components.learners.captioner.options import CaptionerOptions
from icltool.components.tasks import task_named
from icltool.contracts import Example, FineTuningSet, GenerationOptions
from icltool.testing.intervention_learners import InMemoryExamples
from tests.components.learners.captioner.model import TinyCaptioner
from tests.components.learners.captioner.overlap import metric
from tests.components.learners.synthetic import RecordingProgress

#: Options of trainings that take a second.
SMALL: dict[str, Any] = {
    "epochs": 2, "batch_size": 4, "lr": 1e-2, "schedule": "constant", "crop": "resized", "flip": True, "select": "loss",
}  # fmt: skip


def several_captions(examples: Sequence[Example], style: bool = False) -> list[Example]:
    """The same examples with two or three captions each, and styles."""
    copies = []
    for i, example in enumerate(examples):
        captions = (example.label, f"the {example.label[2:]}", f"some {example.label[2:]} here")[: 2 + i % 2]
        copies.append(replace(example, references=captions, style=("dry", "cheerful", "sad")[i % 3] if style else ""))
    return copies


def fine_tuning_set(
    examples: Sequence[Example], model: TinyCaptioner | None = None, held: int = 6, beams: int = 3, **changes: Any
) -> FineTuningSet:
    """The last `held` examples are for development."""
    return FineTuningSet(
        model=model or TinyCaptioner(),
        task=changes.pop("task", task_named("caption").model_copy(update={"max_new_tokens": 8})),
        examples=InMemoryExamples(examples[:-held]),
        development=InMemoryExamples(examples[-held:]),
        metric=metric,
        generation=GenerationOptions(max_new_tokens=6, num_beams=beams),
        batch_size=4,
        provenance={"dataset": "in memory", "dataset_fingerprint": "f00d", "icltool": "test"},
        **changes,
    )


def fine_tuned(data: FineTuningSet, folder: Path, progress: Any = None, seed: int = 3, **options: Any) -> Any:
    """The outcome of a training."""
    learner = Captioner(CaptionerOptions(**{**SMALL, **options}))
    return learner.tune(data, folder, seed, progress or RecordingProgress())
