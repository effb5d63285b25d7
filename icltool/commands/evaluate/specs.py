"""How a call names its methods: NAME, NAME:OPTION=VALUE:… or LABEL=NAME:…; one method can be there in several settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icltool.config.fields import toml_value
from icltool.errors import ConfigError

#: A colon that an option follows: one in a path does not count.
_BEFORE_OPTION = re.compile(r":(?=[A-Za-z_][\w-]*=)")
_LABEL = re.compile(r"[^\s/\\\0.:@-][^/\\\0:@]*")


@dataclass(frozen=True)
class Spec:
    """A method of the call: its registered name, its options, and what tables and files call it."""

    name: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)


def read_specs(texts: Sequence[str]) -> list[Spec]:
    """The methods that `texts` name, each once. ConfigError for one that is written wrongly, and for two of one label."""
    specs = [_read(text) for text in dict.fromkeys(texts)]
    labels = [spec.label for spec in specs]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"two methods of the call are called {label!r}", "give them names of their own: --method LABEL=NAME:…"
            )
    return specs


def method_names(texts: Sequence[str]) -> list[str]:
    """The registered names of the methods that `texts` name, each once."""
    return list(dict.fromkeys(_read(text).name for text in texts))


def _read(text: str) -> Spec:
    head, *rest = _BEFORE_OPTION.split(text)
    left, sign, right = head.partition("=")
    name = (right if sign else left).strip()
    options: dict[str, Any] = {}
    for part in rest:
        key, _, value = part.partition("=")
        if key in options:
            raise ConfigError(f"--method {text}: {key} is given twice", "give each option once")
        options[key.replace("-", "_")] = toml_value(value.strip())
    label = left.strip() if sign else ":".join([_told(name), *(f"{k}={_told(v)}" for k, v in options.items())])
    if not name or ":" in name:
        raise ConfigError(
            f"--method {text}: a method's options are written NAME:OPTION=VALUE:OPTION=VALUE",
            "--method mmr:pool=50, say",
        )
    if sign and not _LABEL.fullmatch(label):
        raise ConfigError(f"--method {text}: {label!r} can be no label", "letters, digits and spaces can")
    return Spec(name, label, options)


def _told(value: Any) -> str:
    """A value in a label: of a path the last part alone."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[/\\\0]", "_", Path(text).name or text)
