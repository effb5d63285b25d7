"""Files of vectors for tests: random ones, added with one strength in all layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from icltool.components.interventions.files import save_intervention
from icltool.contracts import SupportsDecoderHooks

ABOUT = {"dataset": "shapes", "task": "vqa", "shots": 8, "seed": 3}


def vectors(
    path: Path,
    model: SupportsDecoderHooks,
    alpha: float,
    method: str = "live",
    about: dict[str, Any] | None = None,
    seed: int = 0,
    **base: Any,
) -> Path:
    """Writes a file for the model; with `alpha` 0 it changes nothing. `base` says what is recorded of another model."""
    made_for = replace(model.base_model(), **base)
    drawn = torch.randn(made_for.sites, made_for.width, generator=torch.Generator().manual_seed(seed))
    tensors = {"vectors": drawn, "alphas": torch.full((made_for.sites,), alpha)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_intervention(path, method, made_for, ABOUT if about is None else about, tensors)
    return path
