"""What a model is called in tables and files: its registered name, or the name of the checkpoint that the user gave."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
#: Names of folders and files within a training, which say little without the folder above them.
_WITHIN = re.compile(r"(checkpoint|epoch|step|iter)[-_]?\d*|best|last|final|model|weights|snapshots?", re.IGNORECASE)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".ckpt")


def checkpoint_name(model: str, path: str | None) -> str:
    """The name of the checkpoint at `path`, a folder, a file or OWNER/NAME of the hub; `model` without a path.

    The path need not exist any more. A folder of the hub's cache is called OWNER/NAME; one such as "checkpoint-500" has the
    folder above it in its name.
    """
    if not path:
        return model
    if _HUB_ID.fullmatch(path) and not path.startswith(".") and not Path(path).exists():
        return path
    place = Path(path).absolute() if not path.startswith("/") or ".." in path else Path(path)
    place = place.resolve() if place.name in ("", "..") else place
    if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
        return "/".join(place.parent.parent.name.split("--", 2)[1:])
    name = place.stem if place.suffix in _WEIGHTS else place.name
    return f"{place.parent.name}/{name}" if _WITHIN.fullmatch(name) and place.parent.name else name or model


def checkpoint_name_in(configuration: Mapping[str, object]) -> str | None:
    """The name of the model in an artefact's configuration; None if it ran no model."""
    model, path = configuration.get("model"), configuration.get("model_path")
    return None if model is None else checkpoint_name(str(model), None if path is None else str(path))
