"""What a configuration field looks like from outside: its flag, its choices, and how text becomes its value."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypedDict, TypeGuard, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from icltool.config.groups import Group
from icltool.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAMES: dict[type, str] = {int: "an integer", float: "a number", bool: "true or false", Path: "a path"}
_METAVARS: dict[type, str] = {int: "N", float: "NUMBER", Path: "PATH"}


class Extras(TypedDict, total=False):
    """The keys of a field's `json_schema_extra`, all optional."""

    flag: str
    """The long flag, where it is not the field's name."""
    short: str
    """A short flag: "-n"."""
    aliases: list[str]
    """Further long flags, which the help does not list."""
    argument: bool
    """The field is a positional argument."""
    metavar: str
    """The value in the help: "HOST:PORT"."""
    group: Group
    """The heading under which the help lists the option."""
    daily: bool
    """Whether `--help` lists the option; `--help-all` lists all. True by default only for an option without a group."""
    default: str
    """The default in words: "the only prepared data set"."""
    env: str
    """The environment variable that sets the option."""
    complete: str
    """The kinds of component whose names the shell offers, with commas between."""
    hidden_in_artefact: bool
    """The option cannot change the result (batch size, device, paths): it is neither part of an artefact's name nor compared
    on resume."""


@dataclass(frozen=True)
class Shape:
    """A field's type, reduced to what the command line needs.

    `item` is the scalar type (of the items where `many` is true). `choices` are the values a Literal allows.
    `keyed` marks a mapping (KEY=VALUE). `optional` is true where None is allowed.
    """

    item: type
    optional: bool = False
    many: bool = False
    keyed: bool = False
    choices: tuple[object, ...] = ()

    @property
    def flag_like(self) -> bool:
        """True for a single yes-or-no field, which becomes --x/--no-x."""
        return self.item is bool and not self.many and not self.keyed

    @property
    def metavar(self) -> str:
        """The option's value in the help."""
        if self.keyed:
            return "KEY=VALUE"
        one = "|".join(map(str, self.choices)) if self.choices else _METAVARS.get(self.item, "TEXT")
        return f"{one},…" if self.many else one

    @property
    def expected(self) -> str:
        """The values that are allowed, in words, for error messages."""
        if self.keyed:
            return "KEY=VALUE"
        if self.choices:
            names = [str(choice) for choice in self.choices]
            one = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
        else:
            one = _NAMES.get(self.item, "a string")
        return f"a list in which each item is {one}" if self.many else one


def extras(field: FieldInfo) -> Extras:
    """The field's `json_schema_extra`, empty when it has none."""
    return cast(Extras, field.json_schema_extra) if isinstance(field.json_schema_extra, dict) else {}


def flag_of(name: str, field: FieldInfo) -> str:
    """The long flag of a field: `flag` in its extras (with or without the dashes), or its name with hyphens."""
    return "--" + (extras(field).get("flag") or name.replace("_", "-")).lstrip("-")


def shape_of(field: FieldInfo) -> Shape:
    """The shape of a model's field."""
    return _shape(field.annotation)


def _shape(annotation: object) -> Shape:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shape(arguments[0])
    if origin in (Union, types.UnionType):
        inner = [_shape(a) for a in arguments if a is not type(None)]
        choices = tuple(choice for shape in inner for choice in shape.choices)
        open_ended = next((shape for shape in inner if not shape.choices), None)
        chosen = open_ended or Shape(inner[0].item, many=inner[0].many, choices=choices)
        return Shape(chosen.item, type(None) in arguments, chosen.many, chosen.keyed, chosen.choices)
    if origin is Literal:
        return Shape(type(arguments[0]), choices=arguments)
    if origin in (tuple, list, frozenset, set) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        inner_shape = _shape(arguments[0]) if arguments else Shape(str)
        return Shape(inner_shape.item, many=True, choices=inner_shape.choices)
    if annotation is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return Shape(str, keyed=True)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Shape(annotation, keyed=True)
    return Shape(annotation if isinstance(annotation, type) else object)


def from_text(shape: Shape, text: str | Sequence[str]) -> object:
    """Turns what was typed (a text; several for a list or a mapping) into what the model validates.

    Lists are split at commas; mappings are read from KEY=VALUE with TOML scalars as values; `~` is expanded in paths.
    Raises ConfigError for an entry of a mapping without "=".
    """
    texts = [text] if isinstance(text, str) else list(text)
    if shape.keyed:
        return dict(_entry(entry) for entry in texts)
    if shape.many:
        return [_scalar(shape, part.strip()) for entry in texts for part in entry.split(",") if part.strip()]
    if shape.optional and shape.item is not str and texts[-1].lower() == "none":
        return None
    return _scalar(shape, texts[-1])


def is_typed(value: object) -> TypeGuard[str | Sequence[str]]:
    """Whether a value is as it was typed, one text or several, and not an object that is one already."""
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value))


def toml_value(text: str) -> object:
    """The value of a TOML scalar, array or inline table; the text itself when it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _entry(entry: str) -> tuple[str, object]:
    key, sign, value = entry.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"{entry!r} is not of the form KEY=VALUE")
    return key.strip(), toml_value(value.strip())


def _scalar(shape: Shape, text: str) -> object:
    if shape.choices:
        return next((choice for choice in shape.choices if str(choice) == text), text)
    if shape.item is Path:
        return str(Path(text).expanduser())
    return text
