"""What a captioner's training leaves in its folder: files of weights, and a card that says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icltool.contracts import TuningSet
from icltool.store.atomic import write_text

CARD, BEST, LAST = "README.md", "best.safetensors", "last.safetensors"
#: Figures that differ between two runs of the same training.
_SPEEDS = frozenset({"images_per_second", "images_per_second_per_device"})


def about_tuning(
    data: TuningSet, seed: int, options: Mapping[str, Any], examples: int, captions: int
) -> dict[str, Any]:
    """What is recorded in the files and on the card, but for the figures; the same for the same training."""
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
        "generation": {name: getattr(data.generation, name) for name in data.generation.__slots__},
        "icltool": source.get("icltool"),
    }


def lasting(record: Mapping[str, float]) -> dict[str, float]:
    """A record's figures that the same training has again."""
    return {name: value for name, value in record.items() if name not in _SPEEDS}


def write_card(
    folder: Path, data: TuningSet, about: Mapping[str, Any], best: Mapping[str, float], last: Mapping[str, float]
) -> None:
    """Writes README.md. StoreError when that fails."""
    base = data.provenance.get("model_path") or data.provenance.get("model") or data.model.name
    write_text(folder / CARD, "\n".join(_lines(data, str(base), about, lasting(best), lasting(last))))


def _lines(
    data: TuningSet, base: str, about: Mapping[str, Any], best: Mapping[str, float], last: Mapping[str, float]
) -> list[str]:
    name = data.model.name
    generation = data.generation
    return [
        f"---\nlibrary_name: icltool\npipeline_tag: image-to-text\ntags: [image-captioning, {name}]\n---\n",
        f"# {name}, fine-tuned on {about['dataset'] or 'captions'} ({about['task']})\n",
        f"`{BEST}` holds the weights that were best on development examples, `{LAST}` those after the last epoch: what was "
        "trained, to be laid over the weights of the base model.\n",
        "Evaluate it, or use it like any other model:\n",
        f"    icltool evaluate --model {name} --model-path {BEST} --method finetuned",
        f"    icltool caption --model {name} --model-path {BEST}\n",
        *_table("training", {**{k: v for k, v in about.items() if k != "options"}, "model": name, "base": base}),
        *_table("captions are searched with", {n: getattr(generation, n) for n in generation.__slots__}),
        *_table("figures of the best weights", best),
        *_table("figures of the last epoch", last),
        *_table("options", about["options"]),
    ]


def _table(title: str, rows: Mapping[str, Any]) -> Sequence[str]:
    return [f"| {title} | |", "|---|---|", *(f"| {key} | {_text(value)} |" for key, value in rows.items()), ""]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return (value if isinstance(value, str) else json.dumps(value)).replace("|", "\\|").replace("\n", " ")
