"""The encoder that a user names: a registered one, or any that a folder, the hub or open_clip has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icltool.components.encoders.locating import (
    IMAGE_TEXT,
    IMAGES,
    OPEN_CLIP,
    TEXTS,
    is_hub_id,
    kind_of,
    locate,
    open_clip_tag,
)
from icltool.errors import ConfigError
from icltool.plugin.manager import component, load_registry

_KINDS = (OPEN_CLIP, IMAGE_TEXT, IMAGES, TEXTS)
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class ChosenEncoder:
    """`name` is what embeddings files and messages call it, `component` its registered name, and `options` what the component
    is built with."""

    name: str
    component: str
    options: Mapping[str, Any]

    def build(self, **further: Any) -> Any:
        """The encoder, with `further` options. Raises ConfigError if it cannot be loaded."""
        return component("encoders", self.component, **{**self.options, **further})


def chosen_encoder(name: str, path: str | None, options: Mapping[str, Any]) -> ChosenEncoder:
    """The encoder `name` with the weights at `path`: a folder, a file, OWNER/NAME of the hub or ARCHITECTURE/TAG of open_clip.

    A name that is not registered is the user's own: the files at `path` tell the component. Raises PluginError for an unknown
    name without a path, ConfigError if the files are missing, or not of the registered encoder.
    """
    registry = load_registry()
    if path is None:
        registry.get("encoders", name)
        return ChosenEncoder(name, name, dict(options))
    registered = name in registry.names("encoders")
    if not registered and _NOT_IN_NAMES.search(name):
        raise ConfigError(f"{name!r} cannot name an encoder", "use letters, digits, dots and hyphens")
    own = {} if registered else {"name": name}
    if (tag := open_clip_tag(path)) is not None:
        made = {"architecture": tag[0], "pretrained": tag[1], "download": True}
        return ChosenEncoder(name, _of_kind(name, OPEN_CLIP, path), {**own, **made, **options})
    if not registered and Path(path).is_file():
        if "architecture" not in options:
            raise ConfigError(
                f"encoder {name!r}: {path} is a file, which does not tell its architecture",
                "add --encoder-option architecture=NAME of open_clip, such as ViT-B-32",
            )
        return ChosenEncoder(name, OPEN_CLIP, {**own, "path": path, **options})
    chosen = name
    if Path(path).is_dir() or is_hub_id(path) or not registered:
        chosen = _of_kind(name, kind_of(name, locate(name, None, path)), path)
    return ChosenEncoder(name, chosen, {**own, "path": path, **options})


def is_published(name: str, path: str) -> bool:
    """Whether `path`, OWNER/NAME or ARCHITECTURE/TAG, names the very weights that the encoder `name` is registered with."""
    registry = load_registry()
    if name not in registry.names("encoders") or not is_hub_id(path):
        return False
    options = registry.get("encoders", name).registration.options
    return path in (options.get("hub_id"), f"{options.get('architecture')}/{options.get('pretrained')}")


def name_of(path: str) -> str | None:
    """What the encoder at `path` is called unless the user names it; None for a single file."""
    if (tag := open_clip_tag(path)) is not None:
        return _NOT_IN_NAMES.sub("_", "-".join(tag))
    if Path(path).is_dir():
        return _NOT_IN_NAMES.sub("_", Path(path).resolve().name) or None
    return path.partition("/")[2] if is_hub_id(path) else None


def _of_kind(name: str, kind: str, path: str) -> str:
    """The registered name of what reads files of this kind: `name` if it does, `kind` for a name of the user's own. ConfigError
    if `name` is registered for files of another kind."""
    registry = load_registry()
    if name not in registry.names("encoders"):
        return kind
    targets = {item.name: item.registration.target for item in registry.components if item.kind == "encoders"}
    if targets[name] != targets[kind] and targets[name] in {targets[other] for other in _KINDS}:
        raise ConfigError(
            f"encoder {name!r} reads weights of another kind than those of {path}, which are for {kind}",
            "leave --encoder out, or give it a name of your own",
        )
    return name
