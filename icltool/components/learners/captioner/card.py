"""The files of a captioner's training: weights, and a card that describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from icltool.contracts import FineTuningSet
from icltool.store.atomic import write_text

CARD = "README.md"
#: Figures that differ between two runs of the same training.
_SPEEDS = frozenset({"images_per_second", "images_per_second_per_device"})


class About(TypedDict):
    """The record in the files and on the card, without the figures; JSON values, identical for identical trainings."""

    learner: str
    dataset: object
    task: str
    dataset_fingerprint: object
    seed: int
    examples: int
    captions: int
    options: dict[str, object]
    generation: dict[str, object]
    icltool: object


def about_fine_tuning(
    data: FineTuningSet, seed: int, options: Mapping[str, object], examples: int, captions: int
) -> About:
    """See About."""
    source = data.provenance
    return {
        "learner": "captioner",
        "dataset": source.get("dataset"),
        "task": data.task.name,
        "dataset_fingerprint": source.get("dataset_fingerprint"),
        "seed": seed,
        "examples": examples,
        "captions": captions,
        "options": dict(options),
        "generation": asdict(data.generation),
        "icltool": source.get("icltool"),
    }


def lasting(record: Mapping[str, float]) -> dict[str, float]:
    """The figures of a record that are reproducible."""
    return {name: value for name, value in record.items() if name not in _SPEEDS}


def write_card(
    folder: Path, data: FineTuningSet, about: About, best: Mapping[str, float], last: Mapping[str, float]
) -> None:
    """Writes README.md. Raises StoreError if that fails."""
    base = data.provenance.get("model_path") or data.provenance.get("model") or data.model.name
    write_text(folder / CARD, "\n".join(_lines(data, str(base), about, lasting(best), lasting(last))))


def _lines(
    data: FineTuningSet, base: str, about: About, best: Mapping[str, float], last: Mapping[str, float]
) -> list[str]:
    name = data.model.name
    return [
        f"---\nlibrary_name: icltool\npipeline_tag: image-to-text\ntags: [image-captioning, {name}]\n---\n",
        f"# {name}, fine-tuned on {about['dataset'] or 'captions'} ({about['task']})\n",
        "`best.safetensors` holds the weights that were best on development examples, `last.safetensors` those after the last "
        "epoch. They contain the trained tensors, which replace those of the base model.\n",
        "Evaluate it, or use it like any other model:\n",
        f"    icltool evaluate --model {name} --model-path best.safetensors --method finetuned",
        f"    icltool caption --model {name} --model-path best.safetensors\n",
        *_table("training", {**{k: v for k, v in about.items() if k != "options"}, "model": name, "base": base}),
        *_table("captions are searched with", asdict(data.generation)),
        *_table("figures of the best weights", best),
        *_table("figures of the last epoch", last),
        *_table("options", about["options"]),
    ]


def _table(title: str, rows: Mapping[str, object]) -> Sequence[str]:
    return [f"| {title} | |", "|---|---|", *(f"| {key} | {_text(value)} |" for key, value in rows.items()), ""]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return (value if isinstance(value, str) else json.dumps(value)).replace("|", "\\|").replace("\n", " ")
