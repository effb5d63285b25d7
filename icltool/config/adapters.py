"""The adapter that reads a checkpoint, found from its config.json or from icltool's record of a fine-tuned model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from icltool.components.models.shared.architectures import checkpoint_config, generic_adapter
from icltool.errors import ConfigError
from icltool.plugin.manager import load_registry


class Adapter(NamedTuple):
    """The registered `name` of a model, and the `model_type` in config.json that it reads; "" for a fine-tuned model."""

    name: str
    model_type: str = ""


def adapter_of(path: str) -> Adapter:
    """The adapter of the checkpoint `path`, a folder or OWNER/NAME of the hub.

    A registration that names the checkpoint's model_type comes first, then the adapters for any chat model and any causal LM.
    Raises ConfigError if none reads it, or several do.
    """
    if (name := fine_tuned_name(Path(path))) is not None:
        return Adapter(name)
    content = checkpoint_config(path)
    if content is None:
        raise ConfigError(
            f"--model-path {path}: the folder has no config.json, which names the architecture of a model",
            "name the model with --model, or check the path",
        )
    kind = str(content.get("model_type"))
    registered = [item for item in load_registry().components if item.kind == "models"]
    names = sorted({item.name for item in registered if kind in item.registration.model_types})
    if len(names) > 1:
        raise ConfigError(f"--model-path {path}: {' and '.join(names)} read {kind}", "choose one with --model")
    name = names[0] if names else generic_adapter(content)
    if name is None:
        raise ConfigError(
            f"--model-path {path}: its architecture is {kind}, which no model of icltool reads",
            "name one with --model if it does read it; `icltool plugins list --kind models` lists them",
        )
    return Adapter(name, kind)


def fine_tuned_name(folder: Path) -> str | None:
    """The registered name of the model whose fine-tuned weights are in `folder`, as `icltool train captioner` or `icltool
    export model` wrote them; None for anything else."""
    for file, keys in (("icltool.json", ("model",)), ("training.json", ("identity", "model"))):
        try:
            value: Any = json.loads((folder / file).read_text(encoding="utf-8"))
            if file == "training.json" and not value["provenance"].get("fine_tuned"):
                continue
            for key in keys:
                value = value[key]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if isinstance(value, str):
            return value
    return None
