"""How a call names its methods: NAME, NAME@ENCODER, NAME:OPTION=VALUE:… or LABEL=NAME:…; one method can be there in several
settings.

"A+B" is a method whose second part chooses among what the first one chose; options of its parts are A.OPTION and B.OPTION."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icltool.config.fields import toml_value
from icltool.engine.choosing import BY, THEN, chain_names, chain_parts
from icltool.errors import ConfigError

#: A colon that an option follows: one in a path does not count.
_BEFORE_OPTION = re.compile(r":(?=(?:[a-z0-9][\w.@-]*\.)?[A-Za-z_][\w-]*=)")
_LABEL = re.compile(r"[^\s/\\\0.:@-][^/\\\0:@]*")


@dataclass(frozen=True)
class Spec:
    """A method of the call: its registered name, or those of its parts with "+" between them; its options, and what tables and
    files call it. `encoders` are those that its parts name, "" for a part that names none; () if no part does."""

    name: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)
    encoders: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The registered names of its parts."""
        return chain_names(self.name)

    def options_of(self, name: str, encoder: str = "") -> dict[str, Any]:
        """The options of the part `name`, or of `name` with this encoder. ConfigError for an option that names no part, or none
        of these."""
        if len(self.names) == 1:
            return self.options
        parts = {f"{part}{BY}{by}" for part, by in zip(self.names, self.encoders, strict=False)} | set(self.names)
        for key in self.options:
            whose, dot, _ = key.rpartition(".")
            if whose not in parts:
                raise ConfigError(
                    f"{self.label}: the option {key} "
                    + ("belongs to none of its methods" if dot else "does not name its method"),
                    f"for example {self.names[-1]}.{key.rpartition('.')[2]}={_value_text(self.options[key])}",
                )
        own = (name, f"{name}{BY}{encoder}")
        return {k.rpartition(".")[2]: v for k, v in self.options.items() if k.rpartition(".")[0] in own}


def read_specs(texts: Sequence[str]) -> list[Spec]:
    """The methods that `texts` name, each once. ConfigError for one that is written wrongly, and for two of one label."""
    specs: list[Spec] = []
    for text in texts:
        if (spec := _read(text)) not in specs:
            specs.append(spec)
    labels = [spec.label for spec in specs]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"two methods have the label {label!r}", "give each its own label: --method LABEL=NAME:…")
    return specs


def method_names(texts: Sequence[str]) -> list[str]:
    """The registered names of the methods that `texts` name, and of their parts, each once."""
    return list(dict.fromkeys(name for text in texts for name in _read(text).names))


def _read(text: str) -> Spec:
    head, *rest = _BEFORE_OPTION.split(text)
    left, sign, right = head.partition("=")
    parts = chain_parts(right if sign else left)
    name = THEN.join(part for part, _ in parts)
    whole = THEN.join(part if encoder is None else f"{part}{BY}{encoder}" for part, encoder in parts)
    encoders = tuple(encoder or "" for _, encoder in parts) if whole != name else ()
    options: dict[str, Any] = {}
    for part in rest:
        key, _, value = part.partition("=")
        if key in options:
            raise ConfigError(f"--method {text}: {key} is given twice", "give each option once")
        whose, dot, key = key.rpartition(".")
        options[whose + dot + key.replace("-", "_")] = toml_value(value.strip())
    texts = [_value_text(whole), *(f"{k}={_value_text(v)}" for k, v in options.items())]
    label = left.strip() if sign else ":".join(texts)
    if not all(chain_names(name)) or ":" in name:
        raise ConfigError(
            f"--method {text}: a method's options are written NAME:OPTION=VALUE:OPTION=VALUE",
            "for example --method mmr:pool=50",
        )
    if sign and not _LABEL.fullmatch(label):
        raise ConfigError(f"--method {text}: {label!r} cannot be a label", "letters, digits and spaces can")
    return Spec(name, label, options, encoders)


def _value_text(value: Any) -> str:
    """A value in a label: of a path the last part alone."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[/\\\0]", "_", Path(text).name or text)
