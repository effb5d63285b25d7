"""Merges a configuration from several sources: defaults < environment < profile < --set < flags."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from pydantic import ValidationError

from icltool.config.base import StageConfig
from icltool.config.fields import extras, flag_of, from_text, is_typed, shape_of, toml_value
from icltool.config.problems import as_config_error
from icltool.config.profiles import load_profile
from icltool.errors import ConfigError, suggestion
from icltool.plugin.commands import stage_model, stages

Config = TypeVar("Config", bound=StageConfig)


def resolve(
    stage: str,
    model: type[Config],
    flags: Mapping[str, object] | None = None,
    profile: str | None = None,
    sets: Sequence[str] = (),
) -> Config:
    """The configuration of a command.

    `flags` has the options of the command line by field name, as typed (strings, sequences of strings) or as values; None
    means that an option is not set. `profile` is a name or path, `sets` are strings "key=value" or "command.key=value".
    Later sources win; mappings are merged key by key. Raises ConfigError, with the option, file or variable at fault.
    """
    layers = _Layers(model)
    layers.add_environment()
    if profile is not None:
        loaded = load_profile(profile)
        values = loaded.values(stage, model)
        if _for_another_learner(values, flags or {}):
            del values["options"]
        for name, value in values.items():
            layers.add(name, value, loaded.origin(stage, name))
    for text in sets:
        layers.add_setting(stage, text)
    for name, value in (flags or {}).items():
        if value is not None:
            layers.add_typed(name, value, flag_of(name, model.model_fields[name]))
    return layers.validated()


class _Layers(Generic[Config]):
    """Values by field name, of which the latest wins, and the origin of each."""

    def __init__(self, model: type[Config]) -> None:
        self.model = model
        self.values: dict[str, object] = {}
        self.origins: dict[str, str] = {}

    def add(self, name: str, value: object, origin: str) -> None:
        """Sets a value in place of the earlier one; mappings are merged."""
        before = self.values.get(name)
        self.values[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
        self.origins[name] = _argument_or(origin, name, self.model)

    def add_typed(self, name: str, value: object, origin: str) -> None:
        """Sets a value as typed on the command line, or an object that needs no parsing."""
        try:
            self.add(
                name, from_text(shape_of(self.model.model_fields[name]), value) if is_typed(value) else value, origin
            )
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error.message}", error.hint) from error

    def add_environment(self) -> None:
        """Sets the values of the environment variables that fields name."""
        for name, field in self.model.model_fields.items():
            variable = extras(field).get("env")
            if variable and os.environ.get(variable):
                self.add_typed(name, os.environ[variable], f"environment variable {variable}")

    def add_setting(self, stage: str, text: str) -> None:
        """Sets the value of one --set: "key=value", "command.key=value", or "key.inner=value" for a mapping."""
        path, sign, raw = text.partition("=")
        keys = [key.strip().replace("-", "_") for key in path.split(".")]
        if not sign or not all(keys):
            raise ConfigError(f"--set {text!r} is not of the form key=value", "for example --set anchors=100")
        if len(keys) > 1 and keys[0] in stages():
            if keys[0] != stage:
                self._refuse_other_stage(keys, stage, text)
            keys = keys[1:]
        field = self.model.model_fields.get(keys[0])
        if field is None:
            raise ConfigError(
                f"--set {text}: {stage} has no option {keys[0]!r}", suggestion(keys[0], self.model.model_fields)
            )
        origin = f"--set {path.strip()}"
        if len(keys) == 1:
            value = toml_value(raw.strip())
            self.add_typed(keys[0], value if isinstance(value, (dict, list, str)) else raw.strip(), origin)
        elif not shape_of(field).keyed or len(keys) > 2:
            raise ConfigError(
                f"--set {text}: {keys[0]} is a single value and has no keys", f"write --set {keys[0]}=value"
            )
        else:
            self.add(keys[0], {path.strip().split(".")[-1].strip(): toml_value(raw.strip())}, origin)

    @staticmethod
    def _refuse_other_stage(keys: Sequence[str], stage: str, text: str) -> None:
        fields = stage_model(keys[0]).model_fields
        if keys[1] not in fields:
            raise ConfigError(f"--set {text}: {keys[0]} has no option {keys[1]!r}", suggestion(keys[1], fields))
        raise ConfigError(f"--set {text} is an option of {keys[0]}, not of {stage}", "leave it out")

    def validated(self) -> Config:
        """The model with these values."""
        try:
            return self.model.model_validate(self.values)
        except ValidationError as error:
            raise as_config_error(error, self.model, self.origins) from error


def _for_another_learner(values: Mapping[str, object], flags: Mapping[str, object]) -> bool:
    """Whether a profile's options belong to another learner than the one on the command line, so that they do not apply."""
    typed = flags.get("learner")
    return "options" in values and typed is not None and "learner" in values and typed != values["learner"]


def _argument_or(origin: str, name: str, model: type[StageConfig]) -> str:
    """The origin; a positional argument is called by its name in the help, not by a flag."""
    if origin.startswith("--") and not origin.startswith("--set") and extras(model.model_fields[name]).get("argument"):
        return f"argument {name.upper()}"
    return origin
