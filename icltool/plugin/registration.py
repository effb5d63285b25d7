"""A registration names a component without importing it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Kinds of components, each with its hook (`icltool_<kind>`), in the order in which they are listed.
KINDS: tuple[str, ...] = (
    "models",
    "datasets",
    "tasks",
    "encoders",
    "samplers",
    "scorers",
    "retrievers",
    "metrics",
    "learners",
    "interventions",
    "executors",
    "commands",
)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")


@dataclass(frozen=True)
class Registration:
    """One component: what users type, where its class or factory is, and a line about it.

    `target` is "package.module:Name", imported only when the component is used. `options` are those of the
    component's that this name binds; the user's own come on top. `model_types` are, for a model, the model_type values of
    config.json that this name stands for if only --model-path is given. Raises ValueError for a malformed name or target.
    """

    name: str
    target: str
    summary: str
    options: Mapping[str, object] = field(default_factory=dict)
    model_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"component name {self.name!r}: use lower-case letters, digits, '-', '_' and '.'")
        if not _TARGET.match(self.target):
            raise ValueError(f"target {self.target!r} of {self.name!r} is not of the form 'package.module:Name'")
