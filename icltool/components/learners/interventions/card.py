"""The files of an intervention learner: the intervention, and a card that describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from icltool.components.interventions import files
from icltool.contracts import InterventionSet, ModelIdentity, SupportsDecoderHooks
from icltool.store.atomic import write_text

if TYPE_CHECKING:
    from torch import Tensor

CARD = "README.md"


class About(TypedDict):
    """The record of a training in the file and on the card; JSON values."""

    dataset: object
    task: str
    dataset_fingerprint: object
    shots: int
    seed: int
    options: dict[str, object]
    figures: dict[str, object]
    icltool: object


def about_intervention(
    data: InterventionSet, shots: int, seed: int, options: Mapping[str, object], figures: Mapping[str, object]
) -> About:
    """See About."""
    source = data.provenance
    return {
        "dataset": source.get("dataset"),
        "task": data.task.name,
        "dataset_fingerprint": source.get("dataset_fingerprint"),
        "shots": shots,
        "seed": seed,
        "options": dict(options),
        "figures": dict(figures),
        "icltool": source.get("icltool"),
    }


def write_intervention(
    folder: Path, method: str, model: SupportsDecoderHooks, about: Mapping[str, object], tensors: Mapping[str, Tensor]
) -> Path:
    """Writes `last.safetensors`, whose path is returned, and README.md into `folder`, each atomically. Raises StoreError if
    that fails."""
    path, base = folder / files.WEIGHTS, model.base_model()
    files.save_intervention(path, method, base, about, tensors)
    write_text(folder / CARD, _card(method, base, about, {name: list(t.shape) for name, t in tensors.items()}))
    return path


def remove_old(folder: Path) -> None:
    """Removes the files of an earlier training, so that they are not taken for new ones."""
    for name in (files.WEIGHTS, CARD):
        (folder / name).unlink(missing_ok=True)


def _card(method: str, base: ModelIdentity, about: Mapping[str, object], shapes: Mapping[str, list[int]]) -> str:
    provenance_rows = [
        f"| {key} | {_text(value)} |" for key, value in about.items() if key not in ("options", "figures")
    ]
    figure_rows = []
    for part in (about.get("figures"), about.get("options")):
        figure_rows += (
            [f"| {key} | {_text(value)} |" for key, value in part.items()] if isinstance(part, Mapping) else []
        )
    return "\n".join(
        [
            f"---\nlibrary_name: icltool\ntags: [in-context-learning, {method}]\n---\n",
            f"# {method} for {base.name}\n",
            "An intervention, which takes the place of demonstrations in the prompt:",
            f"`icltool evaluate --model {base.name} --method {method} --vectors {files.WEIGHTS}`.\n",
            "| | |\n|---|---|",
            f"| base model | {base.name} |",
            f"| hash of its weights | {base.weights} |",
            f"| layers, hidden size | {base.sites}, {base.width} |",
            f"| hash of the prompt format | {base.template} |",
            *provenance_rows,
            *(f"| tensor {name} | {shape} |" for name, shape in shapes.items()),
            "",
            "| figure or option | |\n|---|---|",
            *figure_rows,
            "",
        ]
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
