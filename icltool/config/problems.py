"""Validation errors in plain words: which option, what it takes, and what it got."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from icltool.config.fields import Shape, extras, flag_of, shape_of
from icltool.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_TYPE_ERRORS = ("_type", "_parsing", "literal_error", "int_from_float", "none_required")
_COMPARISONS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}


def explain(origin: str, problem: ErrorDetails, shape: Shape | None) -> str:
    """What is wrong with the value of an option: "--shots must be an integer, got 'x'".

    `problem` is one entry of ValidationError.errors(), `shape` the shape of the field, if known.
    """
    kind, context = problem["type"], problem.get("ctx") or {}
    value = _shortened(problem.get("input"))
    if kind in _COMPARISONS:
        words, key = _COMPARISONS[kind]
        return f"{origin} must be {words} {context[key]:g}, got {problem.get('input')}"
    if kind in ("value_error", "assertion_error"):
        message = str(context.get("error", problem["msg"]))
        return f"{origin} {message}" if message.startswith("must ") else f"{origin}: {message}"
    if kind in ("too_short", "string_too_short"):
        return f"{origin} needs at least {context.get('min_length')} value(s), got {value}"
    if shape is not None and any(part in kind for part in _TYPE_ERRORS):
        deep = any(isinstance(part, int) for part in problem["loc"])  # one item of a list
        expected = Shape(shape.item, choices=shape.choices) if deep else shape
        return f"{origin} must be {expected.expected}, got {value}"
    return f"{origin}: {_decapitalised(problem['msg'])}, got {value}"


def as_config_error(
    error: ValidationError, model: type[BaseModel], origins: Mapping[str, str] | None = None, where: str = ""
) -> ConfigError:
    """The first problem of a validation, as one line that names the option and the source of its value.

    `origins` has the source of each field's value, such as "--shots"; the flag of a field stands for one without.
    """
    problems = error.errors(include_url=False)
    problem = problems[0]
    name = str(problem["loc"][0]) if problem["loc"] else ""
    field = model.model_fields.get(name)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    prefix = f"{where}: " if where else ""
    if field is None:
        if name:
            return ConfigError(f"{prefix}unknown option {name!r}{more}", suggestion(name, model.model_fields))
        message = str((problem.get("ctx") or {}).get("error", _decapitalised(problem["msg"])))
        return ConfigError(f"{prefix}{message}{more}", None)
    if problem["type"] == "missing":
        if extras(field).get("argument"):
            return ConfigError(f"{prefix}argument {name.upper()} is missing: {field.description}")
        return ConfigError(f"{prefix}option {flag_of(name, field)} is required: {field.description}")
    origin = (origins or {}).get(name) or flag_of(name, field)
    shape = shape_of(field)
    hint = None if shape.choices else _hint(problem, name, field.description)
    return ConfigError(f"{prefix}{explain(origin, problem, shape)}{more}", hint)


def _hint(problem: ErrorDetails, name: str, description: str | None) -> str | None:
    """The field's description, unless the message is the model's own, which says what is needed."""
    if problem["type"] in ("value_error", "assertion_error") or not description:
        return None
    return f"{name}: {description}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _decapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
