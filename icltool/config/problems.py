"""Validation errors in plain words: which option, what it was given, what it takes."""

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


def explain(problem: ErrorDetails, shape: Shape | None) -> str:
    """What is wrong with a value, from one entry of ValidationError.errors() and the shape of the field (if known)."""
    kind, context = problem["type"], problem.get("ctx") or {}
    given = _shown(problem.get("input"))
    if kind in _COMPARISONS:
        words, key = _COMPARISONS[kind]
        return f"must be {words} {context[key]:g}, not {problem.get('input')}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", problem["msg"]))
    if kind in ("too_short", "string_too_short"):
        return f"needs at least {context.get('min_length')} value(s), not {given}"
    if shape is not None and any(part in kind for part in _TYPE_ERRORS):
        deep = any(isinstance(part, int) for part in problem["loc"])  # one item of a list
        expected = Shape(shape.item, choices=shape.choices) if deep else shape
        return f"expected {expected.expected}, not {given}"
    return f"{_decapitalised(problem['msg'])}, not {given}"


def as_config_error(
    error: ValidationError, model: type[BaseModel], origins: Mapping[str, str] | None = None, where: str = ""
) -> ConfigError:
    """The first problem of a validation as one line that names the option, and where its value came from.

    `origins` names the source of each field's value ("--shots", say); a field without one is named by its flag.
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
        return ConfigError(f"{prefix}{explain(problem, None)}{more}", None)
    if problem["type"] == "missing":
        if extras(field).get("argument"):
            return ConfigError(f"{prefix}argument {name.upper()} is missing: {field.description}")
        return ConfigError(f"{prefix}option {flag_of(name, field)} is required: {field.description}")
    origin = (origins or {}).get(name) or flag_of(name, field)
    shape = shape_of(field)
    hint = None if shape.choices else _hint(problem, name, field.description)
    return ConfigError(f"{prefix}{origin}: {explain(problem, shape)}{more}", hint)


def _hint(problem: ErrorDetails, name: str, description: str | None) -> str | None:
    """The field's description, unless the message is the model's own (then it says what is needed)."""
    if problem["type"] in ("value_error", "assertion_error") or not description:
        return None
    return f"{name}: {description}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _decapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
