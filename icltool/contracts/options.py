"""The options of a component: one pydantic model, which checks them, describes them, and is what the component is built from.

A component's class names the model as `options_model`, and is built from one object of it:

    class NearestOptions(Options):
        pool: int = Field(64, ge=1, description="nearest rows among which the demonstrations are chosen")

    class Nearest:
        options_model = NearestOptions

        def __init__(self, options: NearestOptions) -> None:
            self.options = options

`icltool.component(kind, name, pool=30)` makes that object from the user's values, or raises an error of one line;
`Nearest(NearestOptions(pool=30))` does the same in Python. A class without `options_model` is called with keywords: its
options are the parameters of its signature. A class that has no options, but takes objects in Python, sets `options_model`
to `Options` itself and is called without arguments.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, get_args, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from icltool.errors import ConfigError, closest


class Options(BaseModel):
    """Base of all options: extra ones are refused, and an object of options cannot be changed.

    A field has a type, a default unless it is required, bounds, and a description of one sentence. Texts are read as
    the numbers and truth values that they spell; a truth value is not a number. A validator raises ValueError, or
    ConfigError if it can name a way out.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_for_numbers(cls, value: object, info: ValidationInfo) -> object:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and not {bool, Any} & {annotation, *get_args(annotation)}:
            raise PydanticCustomError("truth_value", "true and false are not numbers")
        return value


#: A JSON schema of one value.
_Schema: TypeAlias = Mapping[str, Any]
#: The default of a required option.
_NONE = inspect.Parameter.empty

AnyOptions = TypeVar("AnyOptions", bound=Options)


@runtime_checkable
class HasOptions(Protocol):
    """A class of components that is built from one object of its `options_model`."""

    options_model: ClassVar[type[Options]]


@dataclass(frozen=True)
class Option:
    """One option as it is shown: `type` in words, `default` as users would type it ("" if the option is required)."""

    name: str
    type: str
    default: str
    description: str

    @property
    def hint(self) -> str:
        """What the option means, for an error about its value."""
        return f"{self.name}: {self.description or self.type}" + (f" (default {self.default})" if self.default else "")


def options_of(factory: Callable[..., object], bound: Mapping[str, object] | None = None) -> list[Option]:
    """The options of a component's class or factory; `bound` values, such as those of a registration, are defaults."""
    bound = bound or {}
    if isinstance(factory, HasOptions):
        return _listed(factory.options_model, bound)
    return [Option(p.name, _annotation(p), _typed(bound.get(p.name, p.default)), "") for p in _named(factory)]


def defaults_of(factory: Callable[..., object]) -> dict[str, object]:
    """The default of each option of a component's class or factory that is not required."""
    if isinstance(factory, HasOptions):
        defaults = {name: _default(field) for name, field in factory.options_model.model_fields.items()}
    else:
        defaults = {p.name: p.default for p in _named(factory)}
    return {name: default for name, default in defaults.items() if default is not _NONE}


def build(
    what: str, factory: Callable[..., Any], values: Mapping[str, object], flags: Mapping[str, str] | None = None
) -> Any:
    """`factory` called with its options made from `values`. Raises ConfigError, which begins with `what` and names the wrong
    option; `flags` are the names of options on the command line where these differ."""
    if isinstance(factory, HasOptions):
        options = options_from(what, factory.options_model, values, flags)
        return factory() if factory.options_model is Options else factory(options)
    named = _named(factory)
    if not any(p.kind is p.VAR_KEYWORD for p in _parameters(factory)):
        _refuse_unknown(what, values, sorted(p.name for p in named), flags or {})
    missing = next((p.name for p in named if p.default is _NONE and p.name not in values), None)
    if missing is not None:
        raise ConfigError(f"{what} needs the option {missing!r}", f"its options: {', '.join(p.name for p in named)}")
    return factory(**values)


def options_from(
    what: str, model: type[AnyOptions], values: Mapping[str, object], flags: Mapping[str, str] | None = None
) -> AnyOptions:
    """The options of `what` from the user's values, checked. Raises ConfigError that names the first wrong one."""
    if model.model_config.get("extra") != "allow":  # a sampler that hands further ones on to its parts
        _refuse_unknown(what, values, sorted(model.model_fields), flags or {})
    try:
        return model(**values)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error.message}", error.hint) from error
    except ValidationError as error:
        raise _config_error(what, model, values, error) from error


def _refuse_unknown(what: str, values: Iterable[str], known: Sequence[str], flags: Mapping[str, str]) -> None:
    unknown = next((name for name in values if name not in known), None)
    if unknown is None:
        return
    listed = f"its options: {', '.join(known)}" if known else "it has no options"
    if flag := flags.get(unknown):
        raise ConfigError(f"{what} has no option {unknown!r} ({flag})", f"leave {flag} out; {listed}")
    close = closest(unknown, known)
    raise ConfigError(f"{what} has no option {unknown!r}", (f"did you mean {close!r}? " if close else "") + listed)


def _config_error(what: str, model: type[Options], values: Mapping[str, object], error: ValidationError) -> ConfigError:
    """The first problem, in one line, and what the option takes."""
    first = error.errors(include_url=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return ConfigError(f"{what}: {reason}")
    name = str(first["loc"][0])
    schema = model.model_json_schema()["properties"][name]
    option = next(option for option in _listed(model, {}) if option.name == name)
    if name not in values:
        return ConfigError(f"{what} needs the option {name!r}", option.hint)
    if first["type"] == "value_error":
        sign = "" if reason.startswith("must ") else ":"
        return ConfigError(f"{what}: {name}{sign} {reason}", option.hint)
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    choices = kinds[0].get("enum", []) if len(kinds) == 1 else []
    if choices:
        close = closest(str(values[name]), choices)
        hint = f"did you mean {close!r}? {option.hint}" if close else option.hint
    else:
        hint = option.hint if option.default in ("", "none") else f"for example {name}={option.default}"
    return ConfigError(f"{what}: {name} must be {_requirement(kinds)}, got {values[name]!r}", hint)


def _requirement(kinds: Sequence[_Schema]) -> str:
    """What a value must be: "a positive integer", "'a' or 'b'"."""
    *others, last = [_with_article(word) for kind in kinds for word in _words(kind)]
    return f"{', '.join(others)} or {last}" if others else last


def _with_article(word: str) -> str:
    """The word with its article; values have none."""
    if word.startswith(("'", '"')) or word in ("true", "false"):
        return word
    return f"{'an' if word.startswith('integer') else 'a'} {word}"


def _listed(model: type[Options], bound: Mapping[str, object]) -> list[Option]:
    schemas = model.model_json_schema().get("properties", {})
    return [
        Option(name, _kind(schemas[name]), _typed(bound.get(name, _default(field))), field.description or "")
        for name, field in model.model_fields.items()
    ]


def _default(field: FieldInfo) -> object:
    return _NONE if field.is_required() else field.get_default(call_default_factory=True)


def _kind(schema: _Schema) -> str:
    """A JSON schema in words: "positive integer", "'a', 'b' or 'c'"."""
    *others, last = [word for kind in schema.get("anyOf", [schema]) for word in _words(kind)]
    return f"{', '.join(others)} or {last}" if others else last


def _words(schema: _Schema) -> list[str]:
    """One word for each value that a schema without alternatives lists, else one for all that it takes."""
    if "enum" in schema or "const" in schema:
        return [repr(value) for value in schema.get("enum", [schema.get("const")])]
    match schema.get("type"):
        case "integer":
            return [_bounded("integer", schema)]
        case "number":
            return [_bounded("number", schema)]
        case "boolean":
            return ["true", "false"]
        case "array":
            return [f"list of {_items(schema)}"]
        case "string":
            return ["path" if schema.get("format") == "path" else "string"]
        case "null":
            return ["none"]
        case "object":
            return ["table of names and values"]
    return ["value"]


def _items(schema: _Schema) -> str:
    """The items of a list, in the plural: "numbers", "2 numbers", "'a' or 'b'"."""
    items = [_kind(item) for item in schema.get("prefixItems", [schema.get("items", {})])]
    plural = [re.sub(r"\b(integer|number|string|path|value)\b", r"\1s", item, count=1) for item in items]
    if len(set(items)) > 1:
        return " and ".join(items)
    return f"{len(items)} {plural[0]}" if len(items) > 1 else plural[0]


def _bounded(noun: str, schema: _Schema) -> str:
    """The noun with its bounds: "positive integer", "number above 0 and below 1", "integer from 1 to 4"."""
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f"{noun} from {least:g} to {most:g}"
    if most is None and below is None:
        if above == 0 or (noun == "integer" and least == 1):
            return f"positive {noun}"
        if least == 0:
            return f"non-negative {noun}"
    lower = f"of at least {least:g}" if least is not None else f"above {above:g}" if above is not None else ""
    upper = f"at most {most:g}" if most is not None else f"below {below:g}" if below is not None else ""
    if not lower and most is not None:
        upper = f"of {upper}"
    return f"{noun} {' and '.join(filter(None, (lower, upper)))}".rstrip()


def _typed(value: object) -> str:
    """A value as users would type it; "" for the default of a parameter without."""
    if value is _NONE:
        return ""
    if isinstance(value, (list, tuple)):
        return ",".join(map(_typed, value)) or "none"
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def _parameters(factory: Callable[..., object]) -> list[inspect.Parameter]:
    """What it is called with. Something compiled, which tells no signature, counts as taking anything by name."""
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return [inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)]


def _named(factory: Callable[..., object]) -> list[inspect.Parameter]:
    """The parameters that can be passed by name."""
    return [p for p in _parameters(factory) if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _annotation(parameter: inspect.Parameter) -> str:
    """The type as it is written."""
    annotation = parameter.annotation
    return "" if annotation is parameter.empty else getattr(annotation, "__name__", str(annotation)).strip("'\"")
